"""The files of one CA of ours: its private key, and its certificate to hand out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aemesh import limits
from aemesh.errors import CertificateFileError, KeyFileError
from aemesh.host.keys.keystore import read_private
from aemesh.host.site.checkedfile import read_checked
from aemesh.host.site.issuing import Signer
from aemesh.host.site.x509files import AUTHORITY_FILES
from aemesh.host.wholefile import write_once, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.trust import Role

PUBLIC = "keys"
PUBLIC_MODE = 0o644
_PUBLIC_FOLDER = 0o755
_LOCKED = b"ENCRYPTED"


def signer_key(folder: Path, role: Role) -> Path:
    """Return where the private key of the CA for this role is."""
    return folder / AUTHORITY_FILES[role].replace(".pem", ".key")


def write_signer(
    folder: Path, role: Role, signer: Signer, passphrase: bytes | None
) -> None:
    """Write key and certificate of a new CA; a key that is there is left."""
    write_once(signer_key(folder, role), private_pem(signer.key, passphrase))
    public = folder / PUBLIC
    public.mkdir(mode=_PUBLIC_FOLDER, exist_ok=True)
    pem = signer.certificate.public_bytes(Encoding.PEM)
    write_whole(public / AUTHORITY_FILES[role], pem, mode=PUBLIC_MODE)


def is_locked(folder: Path, role: Role) -> bool:
    """Whether the key of a CA has a passphrase."""
    return _LOCKED in _read(signer_key(folder, role))


def read_signer(folder: Path, role: Role, passphrase: bytes | None) -> Signer:
    """Return a CA; raises `KeyFileError` without the right passphrase."""
    path = folder / PUBLIC / AUTHORITY_FILES[role]
    most = limits.CERTIFICATE_FILE_BYTES
    pem = read_checked(path, most=most, error=CertificateFileError)
    try:
        certificate = x509.load_pem_x509_certificate(pem or b"")
    except ValueError:
        what = f"{path} is no certificate in PEM"
        raise CertificateFileError(what) from None
    key_path = signer_key(folder, role)
    key = _unlock(key_path, passphrase)
    if certificate.public_key() != key.public_key():
        what = f"{path} is of another key"
        why = f"{key_path} is not the key that it is over"
        raise CertificateFileError(what, why=why)
    return Signer(certificate, key)


def private_pem(
    key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None
) -> bytes:
    """Return a private key as PKCS8 PEM."""
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def _read(path: Path) -> bytes:
    pem = read_private(path)
    if pem is None:
        what = f"there is no {path}"
        raise KeyFileError(what)
    return pem


def _unlock(path: Path, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    pem = _read(path)
    given = passphrase if _LOCKED in pem else None
    # No `from`: the text of a parser's error could quote the file.
    try:
        key = load_pem_private_key(pem, password=given)
    except TypeError:
        what = f"key {path} has a passphrase"
        hint = "run this on a terminal, or give `--passphrase-file FILE`"
        raise KeyFileError(what, hint=hint) from None
    except (ValueError, UnsupportedAlgorithm):
        why = "the passphrase is wrong" if given else "it is no private key in PEM"
        raise _unusable(path, why) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, "it is not of the kind that `aemesh ca init` makes")
    return key


def _unusable(path: Path, why: str) -> KeyFileError:
    what = f"key {path} cannot be used"
    return KeyFileError(what, why=why)
