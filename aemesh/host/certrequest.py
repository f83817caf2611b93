"""A request for a certificate: what a CA takes of it is the key, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from aemesh import limits
from aemesh.errors import CertificateFileError
from aemesh.host.checkedfile import read_given
from aemesh.policy.certificates import key_fault

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )


def read_request(path: Path) -> CertificatePublicKeyTypes:
    """Return the key of a certificate request, PEM, and nothing else of it.

    Refuses one whose signature does not prove that its sender has the key, and a
    key that no node may have.
    """
    most = limits.CERTIFICATE_FILE_BYTES
    pem = read_given(path, most=most, error=CertificateFileError)
    try:
        request = x509.load_pem_x509_csr(pem)
        is_signed = request.is_signature_valid
        public = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _no_request(path, "it is no request in PEM") from None
    if not is_signed:
        raise _no_request(path, "its signature is wrong: who sent it lacks the key")
    fault = key_fault(public)
    if fault:
        raise _no_request(path, fault)
    return public


def _no_request(path: Path, why: str) -> CertificateFileError:
    return CertificateFileError(
        f"request {path} cannot be used",
        why=why,
        hint="`aemesh key csr --role ROLE` on the machine makes one",
    )
