"""The key inside a certificate that a stranger announced."""

from __future__ import annotations

import base64
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from cryptography.utils import CryptographyDeprecationWarning

from aemesh.errors import BadMessage
from aemesh.model.key import KeyId, PublicKey


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate that a peer shows in TLS, and the key in it.

    `node_key` is None unless the key is of the kind that nodes have, Ed25519.
    """

    der: bytes
    key_id: KeyId
    node_key: PublicKey | None


def leaf_untrusted(der: bytes) -> Leaf:
    """Return the key of a DER certificate; raises `BadMessage`.

    Only the key is taken.  Dates and names of a self-signed certificate are the peer's
    own words; those of a CA's are for `aemesh.policy.x509` to verify.  TLS proves the
    possession of the key.
    """
    key = _key_untrusted(der)
    if not isinstance(key, (Ed25519PublicKey, EllipticCurvePublicKey, RSAPublicKey)):
        msg = f"a certificate with a key of another kind, {type(key).__name__}"
        raise BadMessage(msg)
    try:
        line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (ValueError, UnsupportedAlgorithm):  # a curve that OpenSSH does not have
        msg = "a certificate with a key that has no OpenSSH form"
        raise BadMessage(msg) from None
    key_id = KeyId.of_blob(base64.b64decode(line.split()[1]))
    if not isinstance(key, Ed25519PublicKey):
        return Leaf(der, key_id, None)
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Leaf(der, key_id, PublicKey(raw))


def _key_untrusted(der: bytes) -> object:
    """Return the public key of a certificate in canonical DER."""
    try:
        with warnings.catch_warnings():
            # Of what breaks RFC 5280 only a little the library warns, on our terminal.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
        key: object = certificate.public_key()
        canonical = certificate.public_bytes(Encoding.DER)
        # How many bits before the signature are unused is covered by nothing: with
        # another number there, a certificate would have a second form.
        unused = der[-len(certificate.signature) - 1]
    except CryptographyDeprecationWarning:
        msg = "a certificate that breaks RFC 5280"
        raise BadMessage(msg) from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        msg = "not a certificate in DER"
        raise BadMessage(msg) from None
    if canonical != der or unused:
        msg = "a certificate that is not canonical DER"
        raise BadMessage(msg)
    return key
