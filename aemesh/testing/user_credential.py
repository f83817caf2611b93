"""A user's X.509 credential as a grid's authority would give it, for tests."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from aemesh.host.site.usercredential import UserCredential

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Grid:
    """An authority, and a user of it."""

    authority: x509.Certificate
    user: UserCredential

    def write(self, folder: Path) -> Path:
        """Write ``usercert.pem`` and ``userkey.pem``; return the certificate's."""
        folder.mkdir(exist_ok=True)
        path, key = folder / "usercert.pem", folder / "userkey.pem"
        path.write_bytes(self.user.certificates[0].public_bytes(Encoding.PEM))
        key.touch(mode=0o600)
        key.write_bytes(
            self.user.key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        )
        return path


def make_grid(*, now: float, life_after: float = 30 * 86400.0) -> Grid:
    """Return an authority and a certificate of its user Alice."""
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root_name, name = _name("Grid CA"), _name("Alice")
    root = _certificate(root_name, root_name, root_key.public_key(), now, life_after)
    authority = root.add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    ).sign(root_key, SHA256())
    builder = _certificate(name, root_name, key.public_key(), now, life_after)
    user = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    ).sign(root_key, SHA256())
    return Grid(authority, UserCredential((user,), key))


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Grid"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey,
    now: float,
    life_after: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(now - 86400, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(now + life_after, dt.UTC))
    )
