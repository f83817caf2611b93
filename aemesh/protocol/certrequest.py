"""The key in a certificate request (RFC 2986) of somebody else; nothing but the key.

What a request says beside it, names and extensions, is its sender's wish: whoever signs
decides (threat 78).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from aemesh.errors import BadMessage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )


def request_key_untrusted(pem: bytes) -> CertificatePublicKeyTypes:
    """Return the key that a request in PEM is signed by; raises `BadMessage`."""
    try:
        csr = x509.load_pem_x509_csr(pem)
        key = csr.public_key()
        valid = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        msg = "not a certificate request in PEM"
        raise BadMessage(msg) from None
    if not valid:
        msg = "the certificate request is not signed by its own key"
        raise BadMessage(msg)
    return key
