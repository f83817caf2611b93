"""Whether a verified path of certificates was taken back: revocation lists (RFC 5280).

Of the lists that carry a CA's name, those count that its key signed, and of these
the newest decides.  A list that ended says nothing any more, and who cannot ask
refuses: an attacker who can keep a new list from us must not keep a stolen key alive.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from aemesh import limits
from aemesh.errors import quoted
from aemesh.model.trust import Reason
from aemesh.policy.certificates import Refusal, find_extension, moment, refusing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.trust import Anchors

_WHAT = "a revocation list here"


def check_revocation(
    path: list[x509.Certificate], anchors: Anchors, *, now: float
) -> None:
    """Refuse a verified path, leaf to root, that a CA took back or may have."""
    lists = [read_list_untrusted(der) for der in anchors.crls]
    for certificate, issuer in pairwise(path):
        named = [one for one in lists if one.issuer == issuer.subject]
        if named or anchors.crl_required:
            _check_listed(certificate, issuer, named, now)


def read_list_untrusted(der: bytes) -> x509.CertificateRevocationList:
    """Return a revocation list, or refuse with `Reason.CRL` what is none."""
    with refusing(_WHAT, Reason.CRL):
        found = x509.load_der_x509_crl(der)
        _ = found.issuer, found.extensions
        _ = found.last_update_utc, found.next_update_utc
    return found


def _check_listed(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    named: Iterable[x509.CertificateRevocationList],
    now: float,
) -> None:
    who = quoted(issuer.subject.rfc4514_string())
    newest = _newest(issuer, named, who)
    _check_list(newest, who, now)
    with refusing(f"the revocation list of {who}", Reason.CRL):
        serial = certificate.serial_number
        entry = newest.get_revoked_certificate_by_serial_number(serial)
        at = moment(entry.revocation_date_utc) if entry else ""
    if entry is not None:
        msg = f"{who} took the certificate back at {at}"
        raise Refusal(msg, Reason.REVOKED)


def _newest(
    issuer: x509.Certificate,
    named: Iterable[x509.CertificateRevocationList],
    who: str,
) -> x509.CertificateRevocationList:
    """Return the newest list that this CA signed."""
    named = tuple(named)
    if not named:
        msg = f"there is no revocation list of {who}, and one is required"
        raise Refusal(msg, Reason.CRL)
    if not _may_sign_lists(issuer):
        msg = f"{who} may sign no revocation lists: no cRLSign in its keyUsage"
        raise Refusal(msg, Reason.CRL)
    signed = [one for one in named if _is_signed(one, issuer)]
    if not signed:
        msg = f"the revocation list of {who} has a wrong signature"
        raise Refusal(msg, Reason.CRL)
    return max(signed, key=lambda one: one.last_update_utc)


def _check_list(found: x509.CertificateRevocationList, who: str, now: float) -> None:
    """Refuse a list that is not the whole one of today."""
    # Critical extensions tell of lists that are only a part (RFC 5280, 5.2).
    if any(extension.critical for extension in found.extensions):
        msg = f"the revocation list of {who} is only a part, or of an unknown kind"
        raise Refusal(msg, Reason.CRL)
    begins, ends = found.last_update_utc, found.next_update_utc
    if begins.timestamp() > now + limits.CLOCK_SKEW_AFTER:
        msg = f"the revocation list of {who} is not valid before {moment(begins)}"
        raise Refusal(msg, Reason.CRL)
    if ends is None:
        msg = f"the revocation list of {who} does not say when it ends"
        raise Refusal(msg, Reason.CRL)
    if ends.timestamp() <= now:
        msg = f"the revocation list of {who} ended at {moment(ends)}"
        raise Refusal(msg, Reason.CRL)


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    usage = find_extension(issuer, x509.KeyUsage)
    return usage is None or usage.crl_sign


def _is_signed(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    # What the verifier lets a CA have; for others there is no path to come from.
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return False
    with refusing(_WHAT, Reason.CRL):
        return found.is_signature_valid(key)
