"""The worker's key in one generation of one group: made here, never sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)


@dataclass(frozen=True, slots=True)
class GroupKey:
    """A P-256 key, as Dask and OpenSSL like it, and the request for its certificate."""

    private_pem: bytes = field(repr=False)
    csr_pem: str


def make_group_key() -> GroupKey:
    """Return a fresh key with a certificate request (RFC 2986) that names nobody.

    The master takes nothing from the request but the key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return GroupKey(private, csr.public_bytes(Encoding.PEM).decode())
