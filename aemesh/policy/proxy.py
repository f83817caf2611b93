"""Which proxy certificates are ones of ours: RFC 3820, cut down to what we make.

A proxy acts as the user whose certificate signed it.  Ours inherit all rights
(id-ppl-inheritAll), may sign no further proxies, and live for hours.  OpenSSL knows
the extension but leaves the policy language to the application: that is here.
Whether the user's own certificate is worth anything is for the service to say that
the job talks to; a worker has no anchors of grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.policy.certificates import Refusal, refusing

# RFC 3820 section 3.8 (id-pe-proxyCertInfo), section 3.8.2 (the languages).
PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_INHERIT_ALL = bytes.fromhex("2b06010505071501")  # 1.3.6.1.5.5.7.21.1
_INDEPENDENT = bytes.fromhex("2b06010505071502")  # 1.3.6.1.5.5.7.21.2
_LIMITED = bytes.fromhex("2b060104019b5001010109")  # 1.3.6.1.4.1.3536.1.1.1.9, Globus
_LANGUAGES = {_INDEPENDENT: "independent", _LIMITED: "limited"}

_INTEGER, _OID, _SEQUENCE = 0x02, 0x06, 0x30
# Ours has 17 bytes; lengths of one byte are enough for all that we take.
_SHORT = 0x7F


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """What a ProxyCertInfo says: how deep, and in which policy language."""

    path_length: int | None
    language: bytes  # the content of an OBJECT IDENTIFIER
    policy: bytes = b""


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a chain proves: who is acted for, and until when."""

    subject: str
    until: float  # seconds since 1970


def encode_info(path_length: int) -> bytes:
    """Return the DER of our ProxyCertInfo: inherit all, this many further proxies."""
    if not 0 <= path_length <= _SHORT:
        msg = f"a path length of 0 to 127, not {path_length}"
        raise ValueError(msg)
    policy = _tlv(_SEQUENCE, _tlv(_OID, _INHERIT_ALL))
    return _tlv(_SEQUENCE, _tlv(_INTEGER, bytes([path_length])) + policy)


def decode_info_untrusted(data: bytes) -> ProxyInfo:
    """Return what a ProxyCertInfo says; raises `BadMessage` (RFC 3820 section 3.8)."""
    body, rest = _take(data, _SEQUENCE)
    path_length = None
    if body[:1] == bytes([_INTEGER]):
        number, body = _take(body, _INTEGER)
        if len(number) != 1 or number[0] > _SHORT:
            msg = "a proxy's path length is no small number"
            raise BadMessage(msg)
        path_length = number[0]
    policy, beyond = _take(body, _SEQUENCE)
    language, text = _take(policy, _OID)
    if rest or beyond or not language:
        msg = "a proxy's information has something else in it"
        raise BadMessage(msg)
    return ProxyInfo(path_length, language, text)


def check_proxy(chain: tuple[bytes, ...], *, public_key: bytes, now: float) -> Proxied:
    """Return what a chain (DER, the proxy first) proves, or raise `RefusedError`.

    `public_key` is the DER of the key that the proxy must be for; `now` is seconds
    since 1970.  All proxies of the chain are checked, and the certificate beneath.
    """
    certificates = _certificates(chain)
    proxy = certificates[0]
    _check_leaf(proxy, public_key)
    user = _find_user(certificates, now)
    _check_issuer(user)
    return Proxied(user.subject.rfc4514_string(), _end(proxy))


def _find_user(certificates: list[x509.Certificate], now: float) -> x509.Certificate:
    """Check proxies down to the first certificate that is none; return that."""
    depth = 0
    while (info := _info(certificates[depth])) is not None:
        _check_info(info, depth)
        if depth + 1 == len(certificates):
            _refuse("the certificate that it was made from is missing")
        _check_step(certificates[depth], certificates[depth + 1], now)
        depth += 1
    return certificates[depth]


def _certificates(chain: tuple[bytes, ...]) -> list[x509.Certificate]:
    if not 2 <= len(chain) <= limits.PROXY_CERTS:
        _refuse(f"expected 2 to {limits.PROXY_CERTS} certificates")
    try:
        # What breaks RFC 5280 a little is refused, too: the library warns of it, on
        # our terminal, each time.
        with refusing("a certificate in it"):
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            # All that is looked at later is read once, so that nothing breaks then.
            for one in certificates:
                _ = one.subject, one.issuer, one.signature_algorithm_parameters
                _ = one.not_valid_before_utc, one.not_valid_after_utc
    except Refusal as refusal:
        _refuse(str(refusal))
    return certificates


def _check_leaf(proxy: x509.Certificate, public_key: bytes) -> None:
    """Check what holds for the proxy that we made, but not for the user's own."""
    if _spki(proxy) != public_key:
        _refuse("it is for another key")
    info = _info(proxy)
    if info is None:
        _refuse("it has no ProxyCertInfo")
    if info.path_length != 0:
        _refuse("it may sign further proxies")
    life = _end(proxy) - proxy.not_valid_before_utc.timestamp()
    if life > limits.DELEGATION_CAP_AFTER + limits.CLOCK_SKEW_AFTER:
        hours = limits.DELEGATION_CAP_AFTER / 3600
        _refuse(f"it lives for more than {hours:g} hours")


def _check_info(info: ProxyInfo, depth: int) -> None:
    """Check the language and the length (RFC 3820 sections 3.8.1 and 4.1.3)."""
    if info.language != _INHERIT_ALL:
        named = _LANGUAGES.get(info.language, "unknown")
        _refuse(f"its policy language is {named}")
    if info.policy:
        _refuse("it has a policy, where its language has none")
    if info.path_length is not None and depth > info.path_length:
        _refuse("a proxy beneath it may not sign so many others")


def _check_step(issued: x509.Certificate, issuer: x509.Certificate, now: float) -> None:
    """Check one signature with all that belongs to it (sections 3.2 to 3.7)."""
    own = list(issued.subject.rdns)
    if (
        not own
        or own[:-1] != list(issuer.subject.rdns)
        or len(own[-1]) != 1
        or next(iter(own[-1])).oid != NameOID.COMMON_NAME
    ):
        _refuse("its subject is not its issuer's with one common name more")
    _check_extensions(issued)
    _check_usage(issuer)
    begin = issued.not_valid_before_utc.timestamp()
    if begin > now + limits.CLOCK_SKEW_AFTER:
        _refuse("it is not valid yet")
    if min(_end(issued), _end(issuer)) <= now:
        _refuse("it has expired, or what it was made from has")
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        _refuse("it is not signed by the certificate beneath it")


def _check_extensions(issued: x509.Certificate) -> None:
    """Refuse a CA, other names, and what is critical and unknown (3.5 to 3.9)."""
    for extension in _extensions(issued):
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            if value.ca:
                _refuse("it says that it is a CA")
        elif isinstance(
            value, (x509.SubjectAlternativeName, x509.IssuerAlternativeName)
        ):
            _refuse("a proxy has no other names")
        elif isinstance(value, x509.KeyUsage):
            if value.key_cert_sign or not value.digital_signature:
                _refuse("its key is for something else")
        elif extension.critical and not _understood(extension):
            _refuse("it has a critical extension that nobody knows")


def _understood(extension: x509.Extension[x509.ExtensionType]) -> bool:
    return extension.oid == PROXY_CERT_INFO or isinstance(
        extension.value, x509.ExtendedKeyUsage
    )


def _check_usage(issuer: x509.Certificate) -> None:
    """Check that a key may sign proxies, if anything is said of it (section 3.1)."""
    for extension in _extensions(issuer):
        value = extension.value
        if isinstance(value, x509.KeyUsage) and not value.digital_signature:
            _refuse("the key that signed it may not sign")


def _check_issuer(user: x509.Certificate) -> None:
    """Refuse a CA as the issuer of proxies (RFC 3820 section 3.1)."""
    for extension in _extensions(user):
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            _refuse("it was made from the certificate of a CA")


def _info(certificate: x509.Certificate) -> ProxyInfo | None:
    for extension in _extensions(certificate):
        if extension.oid == PROXY_CERT_INFO:
            if not extension.critical:
                _refuse("its ProxyCertInfo is not critical")
            assert isinstance(extension.value, x509.UnrecognizedExtension)
            try:
                return decode_info_untrusted(extension.value.value)
            except BadMessage as exc:
                _refuse(exc.what)
    return None


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        _refuse("an extension of it cannot be read")


def _spki(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        _refuse("its key is of no kind that we know")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _refuse(why: str) -> NoReturn:
    msg = "the delegated certificate is not taken"
    raise RefusedError(msg, why=why) from None


def _tlv(tag: int, content: bytes) -> bytes:
    assert len(content) <= _SHORT, "only lengths of one byte are made here"
    return bytes([tag, len(content)]) + content


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the first element, which has this tag, and the rest."""
    if len(data) < 2 or data[0] != tag or data[1] > _SHORT or len(data) < 2 + data[1]:
        msg = "a proxy's information cannot be read"
        raise BadMessage(msg)
    end = 2 + data[1]
    return data[2:end], data[end:]
