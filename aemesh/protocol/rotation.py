"""The next key of a node: offered over a link that the present key has proved.

::

    signed by the next key:
        "aemesh-rotate/1" | fp of the present key 32 | fp of the next key 32 | B 32

As OpenSSH's ``UpdateHostKeys`` (PROTOCOL, "hostkeys-prove-00"): who offers a key has to
hold it, and what it signs is bound to this connection, so that nobody can offer a
key that they only saw.  B is that of `aemesh.protocol.joining`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from aemesh.errors import BadMessage
from aemesh.model.key import PublicKey
from aemesh.protocol.joining import BINDING_BYTES

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.protocol.wire import Rotate

_LABEL = b"aemesh-rotate/1"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


def statement(present: KeyId, following: KeyId, bound_to: bytes) -> bytes:
    """Return what the next key signs."""
    assert len(bound_to) == BINDING_BYTES
    return _LABEL + present.digest + following.digest + bound_to


def next_key_untrusted(body: Rotate, present: KeyId, bound_to: bytes) -> PublicKey:
    """Return the key that is offered, or raise `BadMessage` if it did not sign."""
    if len(body.key) != _KEY_BYTES or len(body.sig) != _SIGNATURE_BYTES:
        msg = "a next key has 32 bytes, its signature 64"
        raise BadMessage(msg)
    key = PublicKey(body.key)
    try:
        VerifyKey(body.key).verify(statement(present, key.key_id, bound_to), body.sig)
    except (BadSignatureError, ValueError):
        msg = "the next key did not sign for this connection"
        raise BadMessage(msg) from None
    return key
