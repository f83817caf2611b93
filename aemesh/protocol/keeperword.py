"""A master's word for its keeper, which workers hand on to its heirs.

An heir hears of the keeper from a worker, and a worker may be rogue: so the master
signs where the keeper is and which key it has (threat T5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from aemesh.errors import BadMessage
from aemesh.model.address import Address
from aemesh.model.key import RAW_BYTES, KeyId, PublicKey

if TYPE_CHECKING:
    from aemesh.protocol import wire

_LABEL = b"aemesh-keeper/1\0"


def statement(address: Address, key: KeyId) -> bytes:
    """Return what a master signs."""
    return _LABEL + f"{address}\0{key}".encode()


def keeper_untrusted(body: wire.Keeper, *, master: KeyId) -> tuple[Address, KeyId]:
    """Return where the keeper is and its key, as `master` says; raises `BadMessage`."""
    if len(body.master) != RAW_BYTES or PublicKey(body.master).key_id != master:
        msg = f"the word for a keeper is not of {master}"
        raise BadMessage(msg)
    address, key = (
        Address.parse_untrusted(body.address),
        KeyId.parse_untrusted(body.key),
    )
    try:
        VerifyKey(body.master).verify(statement(address, key), body.sig)
    except (BadSignatureError, ValueError, TypeError):
        msg = "the word for a keeper has a wrong signature"
        raise BadMessage(msg) from None
    return address, key
