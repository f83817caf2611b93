"""A node says with which other key it enters TLS, when a CA certified that one.

The naive way is to let the certified key be the identity.  Then announcements would
have to be signed by it, and no RSA signature fits into one; and a certificate that is
renewed over a new key would make a new node of an old machine.

So a node keeps its Ed25519 key as its identity, in every mode.  Where TLS proves
another key, HELLO carries the node key and its signature over the fingerprint of
that other key.  The statement stands for as long as the certificate is used: whoever
repeats it has to hold the certified key, and TLS asks for that each time.
"""

from __future__ import annotations

import base64
import binascii

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from aemesh.errors import BadMessage
from aemesh.model.key import RAW_BYTES, KeyId, PublicKey

_LABEL = b"aemesh-node/1"
_SIGNATURE_BYTES = 64


def statement(tls_key: KeyId) -> bytes:
    """Return what a node key signs: "I enter TLS with the key of this fingerprint"."""
    return _LABEL + tls_key.digest


def node_key_untrusted(key: str, signature: str, *, tls_key: KeyId) -> PublicKey:
    """Return the node key of a HELLO, both fields base64; raises `BadMessage`."""
    raw = _decoded(key, RAW_BYTES)
    try:
        VerifyKey(raw).verify(statement(tls_key), _decoded(signature, _SIGNATURE_BYTES))
    except (BadSignatureError, ValueError):
        msg = "the node key did not sign the key of TLS"
        raise BadMessage(msg) from None
    return PublicKey(raw)


def _decoded(text: str, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != length:
        msg = f"expected {length} bytes of base64 in HELLO"
        raise BadMessage(msg)
    return data
