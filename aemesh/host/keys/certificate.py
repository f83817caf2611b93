"""The certificate that carries an identity key through TLS.

It proves nothing by itself: peers pin the key.  Everything in it follows from the
key, and Ed25519 signatures are deterministic, so one key has one certificate,
byte for byte; a lost file is simply made again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# OpenSSL checks the dates even of a pinned certificate, and a machine's clock may
# be anything: so it is valid in all years that X.509 can write.
_FIRST_DAY = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_DAY = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
# RFC 5280 allows 20 bytes with a positive sign; 16 bytes below 2**127 are safe.
_SERIAL_BITS = 127


def self_signed(key: Ed25519PrivateKey) -> bytes:
    """Return the certificate of an identity key, DER."""
    public = key.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"aemesh {digest.hexdigest()[:32]}")]
    )
    serial = int.from_bytes(digest.digest()[:16], "big") % (1 << _SERIAL_BITS) or 1
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_FIRST_DAY)
        .not_valid_after(_LAST_DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=False), critical=True)
        .add_extension(both_sides(), critical=False)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
        )
    )
    return builder.sign(key, None).public_bytes(Encoding.DER)


def both_sides() -> x509.ExtendedKeyUsage:
    """Return that a node's certificate is good for either side of TLS."""
    # Either role may dial, so either may be the server.
    return x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
    """Return what a key may do: sign certificates and lists, or else for itself."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
