"""What our own CA writes: certificates of CAs, of nodes, and revocation lists.

The profile is the one that `policy.x509` asks for, and that OpenSSL and browsers
take: P-256, SHA-256, both key identifiers, critical basicConstraints and keyUsage.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aemesh.host.keys.certificate import both_sides, key_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )

    from aemesh.model.names import NodeName
    from aemesh.model.trust import Role

DAY = 86400.0
# A machine whose clock is a little behind takes what was signed just now.
_EARLIER = 300.0

# Words for people, as OpenSSL has them in small letters (RFC 5280, 5.3.1).
REASONS: dict[str, x509.ReasonFlags] = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA: its certificate and the key behind it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Revoked:
    """One entry of a revocation list."""

    serial: int
    at: float
    reason: str


def make_signer(role: Role, site: str, *, now: float, days: int) -> Signer:
    """Return a fresh CA that signs nodes of one role, and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, site),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{role.value}s CA"),
        ]
    )
    builder = _builder(key.public_key(), key, begins=now, ends=now + days * DAY)
    certificate = (
        builder.subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(is_ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Signer(certificate, key)


def certify(
    signer: Signer,
    public: CertificatePublicKeyTypes,
    *,
    uri: str,
    name: NodeName,
    span: tuple[float, float],
) -> x509.Certificate:
    """Return a node's certificate for both sides of TLS, good from and until `span`."""
    begins, ends = span
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    return (
        _builder(public, signer.key, begins=begins, ends=ends)
        .subject_name(subject)
        .issuer_name(signer.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=False), critical=True)
        .add_extension(both_sides(), critical=False)
        .add_extension(names, critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def make_list(
    signer: Signer, revoked: Iterable[Revoked], *, now: float, days: int
) -> x509.CertificateRevocationList:
    """Return the CA's revocation list, good for so many days."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(_moment(now))
        .next_update(_moment(now + days * DAY))
        # It has to rise from list to list; time does.
        .add_extension(x509.CRLNumber(int(now)), critical=False)
        .add_extension(_issuer_id(signer.key), critical=False)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(_entry(one))
    return builder.sign(signer.key, hashes.SHA256())


def _entry(one: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(one.serial)
    builder = builder.revocation_date(_moment(one.at))
    flag = REASONS[one.reason]
    if flag is not x509.ReasonFlags.unspecified:  # RFC 5280: then it is left out
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def _builder(
    public: CertificatePublicKeyTypes,
    signing: ec.EllipticCurvePrivateKey,
    *,
    begins: float,
    ends: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins - _EARLIER))
        .not_valid_after(_moment(ends))
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public), critical=False
        )
        .add_extension(_issuer_id(signing), critical=False)
    )


def _issuer_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _moment(at: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)
