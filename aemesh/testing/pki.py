"""Certificate authorities for tests: quick to make, and able to make what is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

# What the tests take for now: 2027-01-15 08:00 UTC.
NOW = 1_800_000_000.0
DAY = 86400.0
BOTH_SIDES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: PrivateKey) -> bytes:
    """Return a private key as PKCS8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a certificate shall be; the defaults are those of an honest leaf."""

    uris: Sequence[str] = ()
    hosts: Sequence[str] = ()
    key: PrivateKey = field(default_factory=new_key)
    begins_at: float = NOW - DAY
    ends_at: float = NOW + 90 * DAY
    purposes: Sequence[x509.ObjectIdentifier] = BOTH_SIDES
    is_ca: bool = False
    constraints: bool = True  # whether there are basicConstraints
    path_length: int | None = None
    signs: bool = True  # digitalSignature
    signs_lists: bool = True  # cRLSign, of a CA
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()  # and whether it is critical


class Authority:
    """A CA, or a node that misuses its certificate as one."""

    def __init__(
        self, name: str, key: PrivateKey, certificate: x509.Certificate
    ) -> None:
        self.name = name
        self.key = key
        self.certificate = certificate

    @classmethod
    def root(cls, name: str, **wishes: object) -> Authority:
        """Return a CA that signed itself."""
        wish = _wish({"is_ca": True, "purposes": (), **wishes})
        subject = _name(name)
        return cls(name, wish.key, _build(subject, subject, wish.key, wish))

    @property
    def der(self) -> bytes:
        """The CA's own certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The CA's own certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def below(self, name: str, **wishes: object) -> Authority:
        """Return a CA that this one signed."""
        wish = _wish({"is_ca": True, "purposes": (), **wishes})
        made = _build(_name(name), self.certificate.subject, self.key, wish)
        return Authority(name, wish.key, made)

    def issue(self, name: str, **wishes: object) -> x509.Certificate:
        """Return a leaf that this one signed."""
        return _build(
            _name(name), self.certificate.subject, self.key, _wish(dict(wishes))
        )

    def leaf(self, name: str, **wishes: object) -> bytes:
        """Return a leaf that this one signed, DER."""
        return self.issue(name, **wishes).public_bytes(Encoding.DER)

    def crl(self, *gone: bytes | x509.Certificate, **wishes: object) -> bytes:
        """Return a revocation list of this CA with these certificates, DER.

        Wishes: `key` to sign with, `begins_at`, `ends_at`, `more` extensions.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(_moment(wishes.get("begins_at", NOW - DAY)))
            .next_update(_moment(wishes.get("ends_at", NOW + DAY)))
        )
        for one in gone:
            if isinstance(one, bytes):
                one = x509.load_der_x509_certificate(one)  # noqa: PLW2901
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(_moment(NOW - 60)).build()
            )
        more = wishes.get("more", ())
        assert isinstance(more, tuple)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        key = wishes.get("key", self.key)
        assert isinstance(key, PrivateKey)
        return builder.sign(key, _hash(key)).public_bytes(Encoding.DER)


def _wish(wishes: dict[str, object]) -> Wish:
    return Wish(**wishes)  # type: ignore[arg-type]  # named by the caller


def _build(
    subject: x509.Name, issuer: x509.Name, signer: PrivateKey, wish: Wish
) -> x509.Certificate:
    public = wish.key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(wish.begins_at))
        .not_valid_after(_moment(wish.ends_at))
    )
    for extension, critical in (
        *_extensions(wish),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            False,
        ),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, _hash(signer))


def _extensions(wish: Wish) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = [(_usage(wish), True)]
    if wish.constraints:
        limits = x509.BasicConstraints(ca=wish.is_ca, path_length=wish.path_length)
        found.append((limits, True))
    names: list[x509.GeneralName] = [
        *map(x509.UniformResourceIdentifier, wish.uris),
        *map(x509.DNSName, wish.hosts),
    ]
    if names:
        found.append((x509.SubjectAlternativeName(names), False))
    if wish.purposes:
        found.append((x509.ExtendedKeyUsage(wish.purposes), False))
    return [*found, *wish.more]


def _usage(wish: Wish) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=wish.signs and not wish.is_ca,
        content_commitment=False,
        key_encipherment=not wish.signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=wish.is_ca,
        crl_sign=wish.is_ca and wish.signs_lists,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _moment(at: object) -> dt.datetime:
    assert isinstance(at, float)
    return dt.datetime.fromtimestamp(at, dt.UTC)


def _hash(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
