"""The user's own X.509 credential, from where tools of grids keep it.

The file of the private key must be readable by the user alone; what others can read
is refused, as those tools do.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from aemesh import limits
from aemesh.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_USER_CERT, _USER_KEY = "usercert.pem", "userkey.pem"
_PEM_KEY_END = "PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, repr=False)
class UserCredential:
    """A certificate with what belongs above it, and its private key."""

    certificates: tuple[x509.Certificate, ...]  # the user's first
    key: RSAPrivateKey | EllipticCurvePrivateKey

    @property
    def subject(self) -> str:
        """Whose it is."""
        return self.certificates[0].subject.rfc4514_string()

    def __repr__(self) -> str:
        return f"<UserCredential {self.subject}>"


def find_credential(
    given: str | None, environ: Mapping[str, str], *, home: Path, temporary: Path
) -> Path:
    """Return the file of the user's certificate; raises `SettingsError`."""
    named = given or environ.get("X509_USER_PROXY")
    if named:
        return Path(named).absolute()
    usual = (
        temporary / f"x509up_u{os.getuid()}",
        home / ".globus" / _USER_CERT,
    )
    for path in usual:
        if path.is_file():
            return path
    msg = "no X.509 credential of yours was found"
    raise SettingsError(
        msg,
        why="looked at $X509_USER_PROXY, " + ", ".join(map(str, usual)),
        hint="name one: `--delegate-from FILE`",
    )


def needs_passphrase(source: Path) -> bool:
    """Whether the private key is encrypted; raises `SettingsError`."""
    return b"ENCRYPTED" in _read_private(_key_file(source))


def read_credential(source: Path, *, passphrase: str = "") -> UserCredential:
    """Read a certificate and its key, from one file or two; raises `SettingsError`."""
    key_file = _key_file(source)
    pem = _read_private(key_file)
    try:
        key = load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unreadable(key_file, "its key, or the passphrase is wrong") from None
    if not isinstance(key, (RSAPrivateKey, EllipticCurvePrivateKey)):
        raise _unreadable(key_file, "a key of RSA or of a curve is expected")
    try:
        certificates = x509.load_pem_x509_certificates(_read(source))
    except ValueError:
        raise _unreadable(source, "its certificate") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = key.public_key().public_bytes(*form)
    if certificates[0].public_key().public_bytes(*form) != own:
        raise _unreadable(source, "its key belongs to another certificate")
    return UserCredential(tuple(certificates), key)


def _key_file(source: Path) -> Path:
    """Return where the key is: in the same file, or in ``userkey.pem`` beside it."""
    if _PEM_KEY_END.encode() in _read(source):
        return source
    beside = source.with_name(_USER_KEY)
    if source.name == _USER_CERT and beside.is_file():
        return beside
    raise _unreadable(source, "there is no private key in it")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limits.PROXY_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    if len(data) > limits.PROXY_BYTES:
        raise _unreadable(path, f"it has more than {limits.PROXY_BYTES} bytes")
    return data


def _read_private(path: Path) -> bytes:
    """Read a file that nobody else may read, looking at what was opened."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(limits.PROXY_BYTES)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 or status.st_uid != os.geteuid():
        msg = f"{path} is not used"
        raise SettingsError(
            msg,
            why=f"others may read your private key (mode {mode:o})",
            hint=f"chmod 600 {path}",
        )
    return data


def _unreadable(path: Path, why: str) -> SettingsError:
    return SettingsError(f"{path} is no credential that can be delegated", why=why)
