"""What one certificate says: its key, its dates, and whom it names.

Everything that cannot be read for certain raises `Refusal`, with the verdict that a
person is shown.  Names come in one of two forms:

* ``aemesh://SITE/ROLE/NAME`` as a URI in subjectAltName, or
* a DNS name in subjectAltName that fits the administrator's pattern, for company
  certificates.  ``*`` in the pattern stands for a piece of one label, and that piece
  is the node's name: ``*.workers.example.org`` makes ``pc7.workers.example.org`` the
  node ``pc7``.  Without ``*`` the first label is the name.  Letters count as small.
"""

from __future__ import annotations

import base64
import re
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from aemesh.errors import BadMessage, quoted
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import Decision, Reason, Role, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T", bound=x509.ExtensionType)
# Below 2048 bits RSA is within reach of a state; above 8192 a stranger's key costs us
# more than its handshake is worth.
_RSA_BITS = range(2048, 8193)
_CURVES = ("secp256r1", "secp384r1")
_SCHEME = "aemesh:"
_SITE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_URI = re.compile(rf"aemesh://({_SITE})/([a-z]+)/([^/]+)", re.ASCII)
# One "*" at most, and never in the last label.
_PATTERN = re.compile(r"[a-z0-9_.-]*\*?[a-z0-9_-]*(?:\.[a-z0-9_-]+)+", re.ASCII)
# One piece of a label of a DNS name; a certificate's own "*" is none.
_PIECE = "([a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure
    """Why a certificate or a revocation list is not taken."""

    def __init__(self, detail: str, reason: Reason = Reason.CERTIFICATE) -> None:
        super().__init__(detail)
        self.verdict = Verdict(Decision.NO, reason, detail)


@contextmanager
def refusing(what: str, reason: Reason = Reason.CERTIFICATE) -> Iterator[None]:
    """Turn whatever the library says of broken bytes into `Refusal`: ``WHAT …``."""
    try:
        with warnings.catch_warnings():
            # Of what breaks RFC 5280 only a little the library warns, on our terminal.
            warnings.simplefilter("error", UserWarning)
            yield
    except UserWarning:
        msg = f"{what} breaks RFC 5280"
        raise Refusal(msg, reason) from None
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        msg = f"{what} cannot be read"
        raise Refusal(msg, reason) from None


def read_certificate_untrusted(der: bytes, what: str) -> x509.Certificate:
    """Return a certificate that is canonical DER and follows RFC 5280."""
    with refusing(what):
        certificate = x509.load_der_x509_certificate(der)
        # All is read once, so that nothing breaks later.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        _ = certificate.public_key(), certificate.signature_algorithm_parameters
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        canonical = certificate.public_bytes(Encoding.DER)
        # The count of unused bits before the signature is covered by nothing: with
        # another one, a certificate would have a second form.
        unused = der[-len(certificate.signature) - 1]
    if canonical != der or unused:
        msg = f"{what} is not canonical DER"
        raise Refusal(msg)
    return certificate


def find_extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    """Return an extension of this kind, or None if there is none."""
    with refusing("the certificate"):
        try:
            return certificate.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None


def key_id_of(certificate: x509.Certificate) -> KeyId:
    """Return the fingerprint of a certificate's key, as ``ssh-keygen -l`` has it."""
    with refusing("the key in a certificate"):
        line = certificate.public_key().public_bytes(
            Encoding.OpenSSH, PublicFormat.OpenSSH
        )
    return KeyId.of_blob(base64.b64decode(line.split()[1]))


def key_fault(key: object) -> str:
    """Return why a node may not have this key; empty: it may."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVES:
            return ""
        return f"its key is on the curve {key.curve.name}, expected P-256 or P-384"
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size in _RSA_BITS:
            return ""
        bits = f"{_RSA_BITS.start} to {_RSA_BITS.stop - 1}"
        return f"its RSA key has {key.key_size} bits, expected {bits}"
    return "its key is not Ed25519, P-256, P-384 or RSA"


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that it is a CA's."""
    found = find_extension(certificate, x509.BasicConstraints)
    return found is not None and found.ca


def check_dates(certificate: x509.Certificate, what: str, now: float) -> None:
    """Refuse a certificate before its first and after its last moment."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first.timestamp():
        msg = f"{what} is not valid yet: it begins at {moment(first)}"
        raise Refusal(msg)
    if now > last.timestamp():
        msg = f"{what} has expired: it ended at {moment(last)}"
        raise Refusal(msg)


def check_leaf(certificate: x509.Certificate, what: str) -> None:
    """Refuse a node's certificate that is not for mutual TLS with a key of ours."""
    if is_authority(certificate):
        msg = f"{what} is a CA's, not a node's"
        raise Refusal(msg)
    if certificate.issuer == certificate.subject:
        msg = f"{what} is self-signed: no CA vouches for it"
        raise Refusal(msg)
    fault = key_fault(certificate.public_key())
    if fault:
        msg = f"{what} cannot be used: {fault}"
        raise Refusal(msg)
    purposes = find_extension(certificate, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        msg = f"{what} is not for TLS clients: no clientAuth in extendedKeyUsage"
        raise Refusal(msg)
    usage = find_extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        msg = f"{what} is not for TLS: no digitalSignature in keyUsage"
        raise Refusal(msg)


def read_name(
    certificate: x509.Certificate, *, role: Role, site: str, dns: str
) -> tuple[str, NodeName]:
    """Return identity and node name that a certificate of this role has.

    `site` and `dns` are as in `Anchors`.  A ``aemesh:`` URI always counts before a
    DNS name, and one that is wrong is never passed over.
    """
    found = find_extension(certificate, x509.SubjectAlternativeName)
    if found is None:
        msg = "the certificate names nobody: no subjectAltName"
        raise Refusal(msg)
    with refusing("the names in the certificate"):
        uris = found.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = found.get_values_for_type(x509.DNSName)
    ours = sorted({uri for uri in uris if uri[: len(_SCHEME)].lower() == _SCHEME})
    if len(ours) > 1:
        msg = f"the certificate has {len(ours)} aemesh names, expected one"
        raise Refusal(msg)
    if ours:
        return ours[0], _name_of_uri(ours[0], role=role, site=site)
    if dns:
        return _name_of_host(hosts, dns)
    msg = f"the certificate has no name aemesh://{site or 'SITE'}/{role.value}/NAME"
    raise Refusal(msg)


def is_site(text: str) -> bool:
    """Whether a text can be the site in ``aemesh://SITE/ROLE/NAME``."""
    return re.fullmatch(_SITE, text, re.ASCII) is not None


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern of DNS names: ``*.workers.example.org``."""
    return _PATTERN.fullmatch(text.lower()) is not None


def moment(at: datetime) -> str:
    """Return a moment as people read it, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _name_of_uri(uri: str, *, role: Role, site: str) -> NodeName:
    match = _URI.fullmatch(uri)
    if match is None:
        msg = f"{quoted(uri)} is no aemesh://SITE/ROLE/NAME"
        raise Refusal(msg)
    if site and match[1] != site:
        msg = f"the certificate is of the site {match[1]}, expected {site}"
        raise Refusal(msg)
    if match[2] != role.value:
        msg = f"the certificate is for a {quoted(match[2])}, expected a {role.value}"
        raise Refusal(msg)
    return _node_name(match[3])


def _name_of_host(hosts: list[str], pattern: str) -> tuple[str, NodeName]:
    """Return the one DNS name that fits, and the node's name in it."""
    before, star, after = pattern.lower().partition("*")
    regex = re.escape(before) + (_PIECE if star else "") + re.escape(after)
    found = {
        host.lower(): match[1] if star else host.lower().partition(".")[0]
        for host in hosts
        if (match := re.fullmatch(regex, host.lower(), re.ASCII))
    }
    if len(found) != 1:
        many = f"{len(found)} of its DNS names fit" if found else "no DNS name fits"
        msg = f"the certificate has no one name: {many} {pattern}"
        raise Refusal(msg)
    host, name = found.popitem()
    return host, _node_name(name)


def _node_name(text: str) -> NodeName:
    try:
        return node_name_untrusted(text)
    except BadMessage as error:
        msg = f"the certificate has no usable name: {error.what}"
        raise Refusal(msg) from None
