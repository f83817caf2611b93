"""Hands the user's X.509 identity on to jobs: signs proxies of it (RFC 3820).

The user's private key stays in this process; a worker's key stays with the worker.
Of a worker's request nothing is taken but the key (threat 78).
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError, SettingsError
from aemesh.host.keys.certificate import key_usage
from aemesh.host.site.usercredential import UserCredential
from aemesh.model.trust import Mode
from aemesh.policy.proxy import PROXY_CERT_INFO, Proxied, check_proxy, encode_info
from aemesh.protocol.certrequest import request_key_untrusted

_RSA_BITS = 2048
# Grid tools have serials of up to 64 bits; a sign bit less stays positive for all.
_SERIAL_BITS = 63


@dataclass(frozen=True, slots=True)
class Delegation:
    """A user's credential, and how long the proxies made from it live."""

    credential: UserCredential
    life_after: float

    def __post_init__(self) -> None:
        check_life(self.life_after)

    def sign_untrusted(self, csr_pem: str, *, now: float) -> str:
        """Return the PEM chain for a worker's key; raises `BadMessage`.

        Raises `SettingsError` if the user's credential is good for nothing now.
        """
        key = _key_untrusted(csr_pem)
        issuer = self.credential.certificates[0]
        proxy = self._builder(issuer, key, now=now).sign(self.credential.key, SHA256())
        chain = (proxy, *self.credential.certificates)
        self._check(chain, key, now=now)
        pem = (one.public_bytes(Encoding.PEM).decode() for one in chain)
        return "".join(pem)

    def _builder(
        self,
        issuer: x509.Certificate,
        key: RSAPublicKey | EllipticCurvePublicKey,
        *,
        now: float,
    ) -> x509.CertificateBuilder:
        serial = secrets.randbits(_SERIAL_BITS) | 1
        number = x509.NameAttribute(NameOID.COMMON_NAME, str(serial))
        own = x509.RelativeDistinguishedName([number])
        end = min(now + self.life_after, issuer.not_valid_after_utc.timestamp())
        begin = max(
            now - limits.CLOCK_SKEW_AFTER, issuer.not_valid_before_utc.timestamp()
        )
        info = x509.UnrecognizedExtension(PROXY_CERT_INFO, encode_info(0))
        if end <= begin:
            why = "it has expired, or is not valid yet"
            raise _unfit(why)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([*issuer.subject.rdns, own]))
            .issuer_name(issuer.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(dt.datetime.fromtimestamp(int(begin), dt.UTC))
            .not_valid_after(dt.datetime.fromtimestamp(int(end), dt.UTC))
            .add_extension(info, critical=True)
            .add_extension(key_usage(is_ca=False), critical=True)
        )

    def _check(
        self,
        chain: tuple[x509.Certificate, ...],
        key: RSAPublicKey | EllipticCurvePublicKey,
        *,
        now: float,
    ) -> Proxied:
        """Look at it as the worker will: the user's own credential may be unfit."""
        ders = tuple(one.public_bytes(Encoding.DER) for one in chain)
        public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        try:
            return check_proxy(ders, public_key=public, now=now)
        except RefusedError as error:
            raise _unfit(error.why or error.what) from None


def check_mode(mode: str) -> None:
    """Raise `SettingsError` where nobody is authenticated."""
    if mode == Mode.OPEN.value:
        msg = "credentials are not delegated in mode open"
        hint = "start master and workers without --insecure-open"
        raise SettingsError(msg, why="nobody is authenticated there", hint=hint)


def check_life(life_after: float) -> None:
    """Raise `SettingsError` for a life that no proxy of ours has."""
    hours = limits.DELEGATION_CAP_AFTER / 3600
    if not 0 < life_after <= limits.DELEGATION_CAP_AFTER:
        msg = f"credentials are not delegated for {life_after / 3600:g} hours"
        raise SettingsError(
            msg,
            why=f"at most {hours:g} hours are, for they cannot be called back",
            hint=f"--delegate {hours:g}h",
        )


def _key_untrusted(csr_pem: str) -> RSAPublicKey | EllipticCurvePublicKey:
    key = request_key_untrusted(csr_pem.encode())
    if isinstance(key, RSAPublicKey) and _RSA_BITS <= key.key_size <= 2 * _RSA_BITS:
        return key
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    msg = "expected a certificate request for a key of RSA 2048 or P-256"
    raise BadMessage(msg)


def _unfit(why: str) -> SettingsError:
    return SettingsError(
        "your certificate cannot be delegated",
        why=why,
        hint="make a new proxy of it with your grid's tools, and try again",
    )
