"""A public key and the fingerprint by which people and programs name it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property

from aemesh.errors import BadMessage, quoted
from aemesh.model.words import four_words

_PREFIX = "SHA256:"
_ALGORITHM = b"ssh-ed25519"
RAW_BYTES = 32


@dataclass(frozen=True, slots=True, order=True)
class KeyId:
    """The SHA-256 of a public key in OpenSSH's wire form, as ``ssh-keygen -l`` has it.

    The printed form is ``SHA256:`` and the base64 of the 32 bytes without padding.
    """

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            msg = f"a fingerprint has 32 bytes, not {len(self.digest)}"
            raise ValueError(msg)

    def __str__(self) -> str:
        return _PREFIX + base64.b64encode(self.digest).decode().rstrip("=")

    __repr__ = __str__

    @property
    def words(self) -> str:
        """Four words for reading aloud; they tell apart, they do not prove."""
        return four_words(self.digest)

    @property
    def label(self) -> str:
        """26 characters of base32, for names where ``+`` and ``/`` cannot stand."""
        return base64.b32encode(self.digest[:16]).decode().rstrip("=").lower()

    @classmethod
    def of_blob(cls, blob: bytes) -> KeyId:
        """Return the fingerprint of a public key in OpenSSH's wire form (RFC 4253)."""
        return cls(hashlib.sha256(blob).digest())

    @classmethod
    def parse_untrusted(cls, text: str) -> KeyId:
        """Return the fingerprint printed as `text`, or raise `BadMessage`."""
        if not text.startswith(_PREFIX) or len(text) != 50:
            msg = f"expected a fingerprint SHA256:…, got {quoted(text)}"
            raise BadMessage(msg)
        try:
            digest = base64.b64decode(text[7:] + "=", validate=True)
            key = cls(digest)
        except (binascii.Error, ValueError):
            msg = f"{quoted(text)} is no fingerprint: not base64 of 32 bytes"
            raise BadMessage(msg) from None
        if str(key) != text:
            msg = f"{quoted(text)} is no fingerprint: stray bits at its end"
            raise BadMessage(msg)
        return key


@dataclass(frozen=True)  # without slots: it keeps its fingerprint
class PublicKey:
    """An Ed25519 public key (RFC 8032): 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != RAW_BYTES:
            msg = f"an Ed25519 public key has 32 bytes, not {len(self.raw)}"
            raise ValueError(msg)

    @property
    def blob(self) -> bytes:
        """The key in OpenSSH's wire form (RFC 8709): two length-prefixed strings."""
        return b"".join(
            len(part).to_bytes(4, "big") + part for part in (_ALGORITHM, self.raw)
        )

    @cached_property
    def key_id(self) -> KeyId:
        """The fingerprint of this key."""
        return KeyId.of_blob(self.blob)

    @property
    def openssh(self) -> str:
        """The one-line form of ``id_ed25519.pub``, without a comment."""
        return f"ssh-ed25519 {base64.b64encode(self.blob).decode()}"

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id})"

    @classmethod
    def parse_untrusted(cls, algorithm: str, encoded: str) -> PublicKey:
        """Return the key of an OpenSSH line's two fields, or raise `BadMessage`."""
        if algorithm != "ssh-ed25519":
            msg = f"expected an ssh-ed25519 key, got {quoted(algorithm)}"
            raise BadMessage(msg)
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            msg = f"{quoted(encoded)} is not the base64 of a key"
            raise BadMessage(msg) from None
        raw = blob[-RAW_BYTES:]
        # Python's base64 takes "=" too many; a key has one spelling.
        if len(raw) != RAW_BYTES or cls(raw).openssh != f"{algorithm} {encoded}":
            msg = f"{quoted(encoded)} is not an ssh-ed25519 key"
            raise BadMessage(msg)
        return cls(raw)


def openssh_key_id_untrusted(algorithm: str, encoded: str) -> KeyId:
    """Return the fingerprint of a key of any kind, as an OpenSSH line has it.

    Raises `BadMessage` if `encoded` is not base64 of a key of that `algorithm`.
    """
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    parts = _strings(blob)
    if len(parts) < 2 or parts[0] != algorithm.encode("ascii", "replace"):
        msg = f"{quoted(encoded)} is not the base64 of a key of {quoted(algorithm)}"
        raise BadMessage(msg)
    return KeyId.of_blob(blob)


def _strings(blob: bytes) -> list[bytes]:
    """Return the length-prefixed strings that `blob` is made of; none if it is not.

    A key that was cut when it was pasted is nobody's: as a revoked one it would
    revoke nothing.
    """
    parts = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < max(end, 4):
            return []
        parts.append(blob[4:end])
        blob = blob[end:]
    return parts
