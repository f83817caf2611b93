"""Whether a certificate chain makes a peer what it says: one pure function.

Chains are verified by `cryptography.x509.verification` (RFC 5280); revocation is
ours (`crl`), since that library has none.  What a person can mend is told by checks
of ours before it: dates, keys, names.  Nothing here reads a file or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from aemesh import limits
from aemesh.errors import quoted
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Role
from aemesh.policy.certificates import (
    Refusal,
    check_dates,
    check_leaf,
    is_authority,
    key_id_of,
    read_certificate_untrusted,
    read_name,
    refusing,
)
from aemesh.policy.crl import check_revocation

if TYPE_CHECKING:
    from cryptography import x509

    from aemesh.model.trust import Anchors, Verdict

# CAs between a node's certificate and the root: a company has one or two.
_INTERMEDIATES = 2
# What the library says before the reason, in this order.
_SAID = ("validation failed: ", "candidates exhausted: ")


@dataclass(frozen=True, slots=True)
class Certified:
    """What a chain proves of its leaf."""

    role: Role
    name: NodeName
    identity: str  # "aemesh://site/role/name", or the DNS name that was taken
    key_id: KeyId  # of the leaf's key
    key_ids: tuple[KeyId, ...]  # of every key in the verified chain, leaf to CA


def verify_untrusted(
    chain: tuple[bytes, ...], anchors: Anchors, *, role: Role, now: float
) -> Certified | Verdict:
    """Return what the chain proves, or the no that says why it proves nothing.

    `chain` is DER, leaf first; `role` is what the peer must be certified as; `now`
    is seconds since 1970.
    """
    try:
        certificates = _read_chain(chain)
        _check_claims(certificates, now)
        # Before the signatures, for its no is the clearer one; it proves nothing yet.
        identity, name = read_name(
            certificates[0], role=role, site=anchors.site, dns=anchors.dns
        )
        path = _path(certificates, _read_authorities(anchors), now)
        check_revocation(path, anchors, now=now)
        key_ids = tuple(map(key_id_of, path))
    except Refusal as refusal:
        return refusal.verdict
    return Certified(role, name, identity, key_ids[0], key_ids)


def read_claim(
    chain: tuple[bytes, ...], *, role: Role, site: str, dns: str, now: float
) -> Certified | Verdict:
    """Return what a chain of our own says, without asking whether a CA vouches.

    Only the leaf and the order of the chain are looked at; `site` and `dns` are as
    in `Anchors`.
    """
    try:
        certificates = _read_chain(chain)
        _check_claims(certificates, now)
        _check_order(certificates)
        identity, name = read_name(certificates[0], role=role, site=site, dns=dns)
        key_ids = tuple(map(key_id_of, certificates))
    except Refusal as refusal:
        return refusal.verdict
    return Certified(role, name, identity, key_ids[0], key_ids)


def authority_fault(der: bytes) -> str:
    """Return why a certificate can be no CA of ours, ever; empty: it can."""
    try:
        certificate = read_certificate_untrusted(der, "it")
    except Refusal as refusal:
        return str(refusal)
    if not is_authority(certificate):
        return "it is no CA's: no CA:TRUE in its basicConstraints"
    key = certificate.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return "its key is Ed25519: a CA needs P-256, P-384 or RSA"
    return ""


def _read_chain(chain: tuple[bytes, ...]) -> list[x509.Certificate]:
    if not chain:
        msg = "there is no certificate"
        raise Refusal(msg)
    if len(chain) > limits.PREAMBLE_CERTS:
        msg = f"{len(chain)} certificates, expected {limits.PREAMBLE_CERTS} at most"
        raise Refusal(msg)
    longest = max(map(len, chain))
    if longest > limits.PREAMBLE_CERT_BYTES:
        most = limits.PREAMBLE_CERT_BYTES
        msg = f"a certificate of {longest} bytes, expected {most} at most"
        raise Refusal(msg)
    return [
        read_certificate_untrusted(der, _called(number))
        for number, der in enumerate(chain)
    ]


def _called(number: int) -> str:
    return (
        f"the CA's certificate {number} in the chain" if number else "the certificate"
    )


def _check_claims(certificates: list[x509.Certificate], now: float) -> None:
    """Refuse for reasons that are clearer in our words than in the library's."""
    check_leaf(certificates[0], _called(0))
    for number, certificate in enumerate(certificates):
        check_dates(certificate, _called(number), now)


def _read_authorities(anchors: Anchors) -> list[x509.Certificate]:
    authorities = []
    for der in anchors.authorities:
        fault = authority_fault(der)
        if fault:
            msg = f"a CA here cannot be used: {fault}"
            raise Refusal(msg)
        authorities.append(read_certificate_untrusted(der, "a CA here"))
    if not authorities:
        msg = "no CA is set up here"
        raise Refusal(msg)
    return authorities


def _path(
    certificates: list[x509.Certificate],
    authorities: list[x509.Certificate],
    now: float,
) -> list[x509.Certificate]:
    """Return the verified path, leaf to a CA of ours and on to that one's own."""
    leaf, *between = certificates
    with refusing("the chain"):
        verifier = (
            PolicyBuilder()
            .store(Store(authorities))
            .time(datetime.fromtimestamp(now, UTC))
            .max_chain_depth(_INTERMEDIATES)
            .build_client_verifier()
        )
        try:
            path = verifier.verify(leaf, between).chain
        except VerificationError as error:
            raise Refusal(_why(certificates, authorities, str(error), now)) from None
    return _extended(path, authorities)


def _extended(
    path: list[x509.Certificate], authorities: list[x509.Certificate]
) -> list[x509.Certificate]:
    """Return a path that goes on to the root, if that is among our CAs too.

    The library stops at the first CA that we trust; when that one is between leaf
    and root, only the root's list can tell that it was taken back.
    """
    path = list(path)
    while len(path) <= limits.PREAMBLE_CERTS and path[-1].issuer != path[-1].subject:
        above = next((ca for ca in authorities if _issued(ca, path[-1])), None)
        if above is None:
            break
        path.append(above)
    return path


def _why(
    certificates: list[x509.Certificate],
    authorities: list[x509.Certificate],
    said: str,
    now: float,
) -> str:
    """Return a sentence about a chain that leads to no CA of ours."""
    top = certificates[-1]
    issuer = quoted(top.issuer.rfc4514_string())
    named = [ca for ca in authorities if ca.subject == top.issuer]
    if top not in authorities and not named:
        return f"no CA of ours signed it: it is signed by {issuer}"
    signed = [ca for ca in named if _issued(ca, top)]
    if top not in authorities and not signed:
        return f"a CA called {issuer} signed it, with another key than ours"
    for ca in signed:
        if now > ca.not_valid_after_utc.timestamp():
            return f"our CA {issuer} has expired"
    for prefix in _SAID:
        said = said.removeprefix(prefix)
    return f"the chain does not hold: {quoted(said.partition(' (encountered')[0])}"


def _check_order(certificates: list[x509.Certificate]) -> None:
    for number, (one, above) in enumerate(pairwise(certificates), 1):
        if not _issued(above, one):
            msg = f"{_called(number)} did not sign the one before it"
            raise Refusal(msg)


def _issued(ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        with refusing("the chain"):
            certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, Refusal):
        return False
    return True
