"""The key inside a certificate that a stranger announced."""

from __future__ import annotations

import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from cryptography.utils import CryptographyDeprecationWarning

from aemesh.errors import BadMessage
from aemesh.model.key import PublicKey


def identity_untrusted(der: bytes) -> PublicKey:
    """Return the Ed25519 key of a DER certificate; raises `BadMessage`.

    Only the key is taken.  Dates and names of a self-signed certificate are the
    peer's own words; TLS proves the possession of the key.
    """
    try:
        with warnings.catch_warnings():
            # Of what breaks RFC 5280 only a little the library warns, on our terminal.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        canonical = certificate.public_bytes(Encoding.DER)
    except CryptographyDeprecationWarning:
        msg = "a certificate that breaks RFC 5280"
        raise BadMessage(msg) from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        msg = "not a certificate in DER"
        raise BadMessage(msg) from None
    if canonical != der:
        msg = "a certificate that is not canonical DER"
        raise BadMessage(msg)
    if not isinstance(key, Ed25519PublicKey):
        msg = f"expected an Ed25519 key, got {type(key).__name__}"
        raise BadMessage(msg)
    return PublicKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
