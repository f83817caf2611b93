"""``issued.jsonl``: what our CAs signed and took back, a JSON line a certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.errors import CertificateFileError
from aemesh.host.site.checkedfile import read_checked
from aemesh.host.wholefile import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate that was signed here."""

    serial: str  # hexadecimal, as `openssl x509 -serial` has it
    role: str
    name: str
    key: str  # the fingerprint, SHA256:…
    begins_at: float  # seconds since 1970
    ends_at: float
    revoked_at: float | None = None
    reason: str = ""

    def state(self, now: float) -> str:
        """Return what it is worth: valid, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if now > self.ends_at else "valid"

    def is_called(self, who: str) -> bool:
        """Whether `who` is its name or its serial number, in either case."""
        return who == self.name or who.lower().lstrip("0") == self.serial.lower()

    def revoked(self, *, now: float, reason: str) -> Issued:
        """Return it as one that was taken back now."""
        return replace(self, revoked_at=now, reason=reason)


_decoder = msgspec.json.Decoder(Issued)
_encoder = msgspec.json.Encoder()


def read_issued(path: Path) -> list[Issued]:
    """Return all that is in the file, oldest first; nothing if it is not there.

    A line that cannot be read refuses the file: it may take a certificate back.
    """
    most = limits.ISSUED_FILE_BYTES
    data = read_checked(path, most=most, error=CertificateFileError) or b""
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            found.append(_decoder.decode(line))
        except msgspec.DecodeError as error:
            what = f"{path}:{number} cannot be read"
            raise CertificateFileError(what, why=str(error)) from None
    return found


def write_issued(path: Path, entries: Sequence[Issued]) -> None:
    """Put a whole new file in place."""
    write_whole(path, b"".join(_encoder.encode(one) + b"\n" for one in entries))
