"""The certificate authority of one group: in memory, for one life of its engine.

A new engine gets a new authority, so no certificate outlives the group that it was
made for (threats 77 and 79); only a master that adopts a running engine goes on with
the one that it has.  Members and clients make their keys themselves and send
a request (RFC 2986), of which nothing is taken but the key (threat 78).
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from aemesh.errors import BadMessage
from aemesh.host.keys.certificate import both_sides, key_usage
from aemesh.protocol.certrequest import request_key_untrusted

if TYPE_CHECKING:
    from aemesh.model.names import GroupName

# Clocks of office machines are off by minutes; Dask does not check names or reload
# certificates, and hangs when one expires: the leaf outlives any group.
_BEFORE = dt.timedelta(days=1)
_LIFE = dt.timedelta(days=366)


class GroupAuthority:
    """Signs the certificates of one group; the private key is nowhere else."""

    def __init__(
        self, group: GroupName, *, now: float, kept: str | None = None
    ) -> None:
        """Make the authority, or go on with a `kept` one; may raise `BadMessage`."""
        self._start = dt.datetime.fromtimestamp(now, dt.UTC) - _BEFORE
        self._name = _name(f"aemesh group {group}")
        if kept is None:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self.certificate_pem = self._self_signed()
        else:
            self._key, certificate = _kept_untrusted(kept)
            self._start = certificate.not_valid_before_utc
            self._name = certificate.subject
            self.certificate_pem = _pem(certificate)

    def kept(self) -> str:
        """Return key and certificate as PEM, for a keeper's memory and no disk."""
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key.decode() + self.certificate_pem

    def _self_signed(self) -> str:
        return _pem(
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(is_ca=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def __repr__(self) -> str:
        return f"<GroupAuthority {self._name.rfc4514_string()}>"

    def sign_untrusted(
        self, csr_pem: str, *, name: str, until: float | None = None
    ) -> str:
        """Return the PEM certificate for the key of a request; raises `BadMessage`.

        `name` becomes the common name: the label of a member, or of a client.  `until`
        (seconds since 1970) ends it before the authority's own life does.
        """
        key = request_key_untrusted(csr_pem.encode())
        if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            msg = "expected a certificate request for a P-256 key"
            raise BadMessage(msg)
        return self._leaf(key, name, until=until)

    def issue(self, *, name: str) -> tuple[bytes, str]:
        """Return a fresh private key and its certificate, PEM, for use right here."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private, self._leaf(key.public_key(), name)

    def _leaf(
        self, key: EllipticCurvePublicKey, name: str, *, until: float | None = None
    ) -> str:
        issuer = self._key.public_key()
        certificate = (
            self._builder(_name(name), key, until=until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(key_usage(is_ca=False), critical=True)
            .add_extension(both_sides(), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate)

    def _builder(
        self,
        subject: x509.Name,
        key: EllipticCurvePublicKey,
        *,
        until: float | None = None,
    ) -> x509.CertificateBuilder:
        end = self._start + _LIFE
        if until is not None:
            end = min(end, dt.datetime.fromtimestamp(until, dt.UTC))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        )


def _kept_untrusted(text: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the key and certificate of an authority as `kept` wrote them."""
    try:
        key = load_pem_private_key(text.encode(), None)
        certificate = x509.load_pem_x509_certificate(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        msg = "what was kept of a group's authority cannot be read"
        raise BadMessage(msg) from None
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        msg = "what was kept of a group's authority is no key with its certificate"
        raise BadMessage(msg)
    return key, certificate


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])
