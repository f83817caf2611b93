"""A join token: what a master hands out so that a worker it never met may join.

::

    AEM1-<issuer>-<id>-<secret>         73 characters, on one line
    issuer   26  base32 of 16 bytes: the first half of the SHA-256 of the master's key
    id        8  base32 of 5 bytes; names the token in lists, and is no secret
    secret   32  base32 of 16 random bytes and the 4 of a CRC-32

128 bits of the master's key are enough to pin it: who wants to pass for the master
needs a key whose hash begins with the same 128 bits as a given one, which takes 2**128
keys.  Two keys that collide are found in 2**64, but both would be of one maker, who
wins nothing.  They are the bits of `KeyId.label`.
The secret has 128 bits too, so that nobody who saw a proof can search for it.

The CRC finds each error in one or two neighbouring characters, and says so before
anybody is dialled: it is for typing, not against anybody.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aemesh.errors import BadMessage

if TYPE_CHECKING:
    from aemesh.model.key import KeyId

_PREFIX = "AEM1"
_PARTS = (("issuer", 26), ("id", 8), ("secret", 32))
_ID = re.compile(r"[a-z2-7]{8}", re.ASCII)
_BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")

ISSUER_BYTES = 16
ID_BYTES = 5
SECRET_BYTES = 16


def is_token_id(text: str) -> bool:
    """Whether `text` may name a token; what may not is never looked for on disk."""
    return _ID.fullmatch(text) is not None


def token_id(raw: bytes) -> str:
    """Return the id of `ID_BYTES` random bytes."""
    return _base32(raw)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Who issued it, which one it is, and the secret that its holder and he share.

    `str` is the whole token, for handing it out, and for nothing else; `repr` and
    every error are without the secret (threat 93).
    """

    issuer: bytes  # the first bytes of the digest of the issuer's key
    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        sizes = len(self.issuer), len(self.secret)
        if sizes != (ISSUER_BYTES, SECRET_BYTES) or not is_token_id(self.id):
            msg = "a join token has 16 bytes of a key, an id and 16 secret bytes"
            raise ValueError(msg)

    def __str__(self) -> str:
        sealed = self.secret + self._checksum()
        parts = (_PREFIX, _base32(self.issuer), self.id, _base32(sealed))
        return "-".join(parts).upper()

    @classmethod
    def of(cls, issuer: KeyId, id_: str, secret: bytes) -> JoinToken:
        """Return the token of this issuer."""
        return cls(issuer.digest[:ISSUER_BYTES], id_, secret)

    @classmethod
    def parse_untrusted(cls, text: str) -> JoinToken:
        """Return the token that `text` is, in either case, or raise `BadMessage`.

        The message says what is wrong, and never repeats what was given: most of a
        token with an error in it is a secret still.
        """
        issuer, id_, sealed = _split(text.strip().lower())
        secret = _bytes(sealed)
        token = cls(_bytes(issuer), id_, secret[:SECRET_BYTES])
        whole = token._checksum() == secret[SECRET_BYTES:]
        # Bits at the end of the issuer that stand for nothing are typing errors too.
        if not whole or _base32(token.issuer) != issuer:
            msg = "the join token has a typing error: its checksum does not fit"
            raise BadMessage(msg)
        return token

    def is_issuer(self, key_id: KeyId) -> bool:
        """Whether this is the key of who issued the token."""
        return key_id.digest[:ISSUER_BYTES] == self.issuer

    def _checksum(self) -> bytes:
        covered = self.issuer + self.id.encode() + self.secret
        return binascii.crc32(covered).to_bytes(4, "big")


def _split(text: str) -> tuple[str, str, str]:
    prefix, *parts = text.split("-")
    if prefix != _PREFIX.lower():
        msg = f"expected a join token, {_PREFIX}-…, got something else"
        raise BadMessage(msg)
    if len(parts) != len(_PARTS):
        msg = f"a join token has 4 parts with - between them, this has {1 + len(parts)}"
        raise BadMessage(msg)
    for part, (name, length) in zip(parts, _PARTS, strict=True):
        if len(part) != length:
            told = f"{length} characters, this has {len(part)}"
            msg = f"the join token has a typing error: its {name} has {told}"
            raise BadMessage(msg)
        if not _BASE32.issuperset(part):
            msg = (
                "the join token has a typing error: "
                f"its {name} has a character that is none of A-Z 2-7"
            )
            raise BadMessage(msg)
    issuer, id_, sealed = parts
    return issuer, id_, sealed


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _bytes(text: str) -> bytes:
    """Return the bytes of base32 of checked length and letters."""
    padding = "=" * (-len(text) % 8)
    return base64.b32decode(text.upper() + padding)
