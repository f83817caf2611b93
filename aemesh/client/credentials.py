"""A client's own key and certificate for one group, in a folder that ends with it.

The key is made here and never leaves this machine; the master signs a request.
The files are in a folder of this process (see `host.livefolder`), apart from the
master's own, which a restarted master empties.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from aemesh.errors import SettingsError
from aemesh.host.livefolder import LiveFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aemesh.model.view import CertificateView

_PRIVATE = 0o600
_NAMES = ("ca.pem", "cert.pem", "key.pem")


class Credentials:
    """A folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; a context manager.

    It is removed by `close`, at the end of the block, or at the latest when the
    interpreter exits.
    """

    def __init__(self, parent: Path, sign: Callable[[str], CertificateView]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        signed = sign(_request(key))
        self._place = LiveFolder(parent)
        self.folder = self._place.path
        for name, content in _files(key, signed).items():
            _write_private(self.folder / name, content)

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Credentials {self._place!r}>"


def save_credentials(
    folder: Path, sign: Callable[[str], CertificateView], *, force: bool = False
) -> None:
    """Write credentials that stay, for tools of the user's own.

    Raises `SettingsError` for a folder that others may enter, or that has some
    already, unless `force` says that they go.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        msg = f"{folder} is no place for a private key"
        raise SettingsError(msg, why="others may enter it", hint=f"chmod 700 {folder}")
    there = [name for name in _NAMES if os.path.lexists(folder / name)]
    if there and not force:
        msg = f"{folder} has credentials already"
        raise SettingsError(msg, why=", ".join(there), hint="--force overwrites them")
    key = ec.generate_private_key(ec.SECP256R1())
    files = _files(key, sign(_request(key)))
    for name in there:
        (folder / name).unlink()
    for name, content in files.items():
        _write_private(folder / name, content)


def _files(
    key: ec.EllipticCurvePrivateKey, signed: CertificateView
) -> dict[str, bytes]:
    parts = (signed.authority.encode(), signed.certificate.encode(), _pem(key))
    return dict(zip(_NAMES, parts, strict=True))


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a signing request; the master alone decides what the names will be."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
