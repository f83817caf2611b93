"""A request for a certificate: what a CA takes of it is the key, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, CertificateFileError
from aemesh.host.site.checkedfile import read_given
from aemesh.policy.certificates import key_fault
from aemesh.protocol.certrequest import request_key_untrusted

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
        public = request_key_untrusted(pem)
    except BadMessage as error:
        raise _no_request(path, error.what) from None
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
