"""Attacks on certificates, by their number in the threat list: policy and files."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aemesh.errors import CertificateFileError
from aemesh.host.keys.keystore import Identity
from aemesh.host.site.x509files import read_anchors
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import (
    Anchors,
    AuthorizedKey,
    Decision,
    Mode,
    Peer,
    Reason,
    RevokedKey,
    Role,
    Terms,
    TrustBook,
    Verdict,
)
from aemesh.policy.terms import allow_group
from aemesh.policy.trust import TrustPolicy, judge, refuses_chain, terms_of
from aemesh.policy.x509 import Certified, verify_untrusted
from aemesh.testing.pki import DAY, NOW, Authority, new_key

if TYPE_CHECKING:
    from pathlib import Path

CAS = {role: Authority.root(f"{role.value}s CA") for role in Role}
ROOT = Authority.root("company root")
COMPANY = Anchors((ROOT.der,))


def uri(role: Role, name: str = "n1") -> str:
    return f"aemesh://lab/{role.value}/{name}"


def anchors(role: Role, **changes: object) -> Anchors:
    """By what the other side judges nodes of this role."""
    return replace(Anchors((CAS[role].der,), site="lab"), **changes)


def refused(chain: tuple[bytes, ...], given: Anchors, role: Role, now=NOW) -> Verdict:
    found = verify_untrusted(chain, given, role=role, now=now)
    assert isinstance(found, Verdict)
    assert found.decision is Decision.NO
    return found


def judged(
    role: Role, chain: tuple[bytes, ...], *, name: str = "n1", **book: object
) -> Verdict:
    """How a node judges a peer of this role that shows a chain in mode x509."""
    peer = Peer(
        role=role,
        name=NodeName(name),
        key=PublicKey(b"k" * 32),
        mode=Mode.X509,
        address="192.0.2.7:7472",
        chain=chain,
    )
    known = TrustBook(**{"anchors": anchors(role), **book})
    policy = TrustPolicy(role=role.other, mode=Mode.X509)
    return judge(peer, known, policy, now=NOW)


@pytest.mark.parametrize("role", Role)
def test_a_self_signed_certificate_is_nobody_s(role: Role):
    """Threat: 35."""
    own = (Identity.ephemeral("n1").certificate,)
    dressed = (Authority.root("n1", is_ca=False, uris=[uri(role)]).der,)

    for chain in (own, dressed):
        verdict = judged(role, chain)
        assert (verdict.decision, verdict.reason) == (
            Decision.NO,
            Reason.CERTIFICATE,
        )


@pytest.mark.parametrize("role", Role)
def test_a_certificate_of_one_role_is_none_of_the_other(role: Role):
    """Threat: 36."""
    leaf = CAS[role.other].leaf("n1", uris=[uri(role.other)])

    verdict = judged(role, (leaf,))

    assert verdict.decision is Decision.NO
    assert f"expected a {role.value}" in verdict.detail
    # Even if its CA would sign it for the other role: there are two CAs.
    lies = CAS[role.other].leaf("n1", uris=[uri(role)])
    assert "no CA of ours signed it" in judged(role, (lies,)).detail
    # And even if one CA is used for both.
    one_ca = anchors(role.other)
    assert "expected a" in refused((leaf,), one_ca, role).detail


@pytest.mark.parametrize("role", Role)
def test_a_certificate_of_one_name_is_none_of_another(role: Role):
    """Threat: 37."""
    chain = (CAS[role].leaf("n1", uris=[uri(role)]),)

    assert judged(role, chain).decision is Decision.OK
    verdict = judged(role, chain, name="n2")
    assert verdict.decision is Decision.NO
    assert verdict.detail == "the certificate is of n1, HELLO says n2"


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("now", "told"),
    [
        (NOW + 2 * DAY, "has expired: it ended at 2027-01-16 08:00:00 UTC"),
        (NOW - 2 * DAY, "is not valid yet: it begins at 2027-01-14 08:00:00 UTC"),
    ],
)
def test_a_certificate_counts_within_its_dates_only(role: Role, now: float, told: str):
    """Threat: 38."""
    leaf = CAS[role].leaf("n1", uris=[uri(role)], ends_at=NOW + DAY)

    assert told in refused((leaf,), anchors(role), role, now).detail


def test_a_certificate_of_a_ca_between_counts_within_its_dates_only():
    """Threat: 38."""
    middle = ROOT.below("middle", ends_at=NOW + DAY)
    chain = (middle.leaf("n1", uris=[uri(Role.MASTER)]), middle.der)

    verdict = refused(chain, COMPANY, Role.MASTER, NOW + 2 * DAY)

    assert "the CA's certificate 1 in the chain has expired" in verdict.detail


@pytest.mark.parametrize("role", Role)
def test_a_ca_of_the_same_name_with_another_key_is_another(role: Role):
    """Threat: 39."""
    false = Authority.root(CAS[role].name)
    leaf = false.leaf("n1", uris=[uri(role)])

    for chain in ((leaf,), (leaf, false.der)):
        assert judged(role, chain).decision is Decision.NO
    assert "with another key than ours" in judged(role, (leaf,)).detail


@pytest.mark.parametrize("role", Role)
def test_a_node_cannot_sign_for_others(role: Role):
    """Threat: 40."""
    key = new_key()
    own = CAS[role].issue("n1", uris=[uri(role)], key=key)
    node = Authority("n1", key, own)
    chain = (node.leaf("n2", uris=[uri(role, "n2")]), node.der)

    verdict = judged(role, chain, name="n2")

    assert (verdict.decision, verdict.reason) == (Decision.NO, Reason.CERTIFICATE)


UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.9"), b"\5\0"), True)
GOOD_ONLY = (x509.NameConstraints([x509.DNSName("good.org")], None), True)


@pytest.mark.parametrize(
    ("middle", "more", "told"),
    [
        (ROOT.below("middle", constraints=False), (), "2.5.29.19"),
        (ROOT.below("middle", is_ca=False), (), "cA must be asserted"),
        (ROOT.below("middle", more=(UNKNOWN,)), (), "critical"),
        (ROOT.below("middle"), (UNKNOWN,), "critical"),
        (ROOT.below("middle", more=(GOOD_ONLY,)), (), "name constraints"),
    ],
    ids=["no constraints", "no CA", "unknown in CA", "unknown in leaf", "names"],
)
def test_a_chain_that_breaks_the_rules_of_its_cas_is_refused(
    middle: Authority, more, told: str
):
    """Threat: 41."""
    leaf = middle.leaf("pc", hosts=["pc.bad.org"], more=more)

    verdict = refused(
        (leaf, middle.der), replace(COMPANY, dns="*.bad.org"), Role.WORKER
    )

    assert told in verdict.detail


def test_names_that_the_constraints_allow_are_taken():
    """Threat: 41."""
    middle = ROOT.below("middle", more=(GOOD_ONLY,))
    leaf = middle.leaf("pc", hosts=["pc.good.org"])

    found = verify_untrusted(
        (leaf, middle.der),
        replace(COMPANY, dns="*.good.org"),
        role=Role.WORKER,
        now=NOW,
    )

    assert isinstance(found, Certified)


def test_a_path_that_is_too_long_is_refused():
    """Threat: 41."""
    issuing = ROOT.below("issuing", path_length=0)
    deep = issuing.below("too deep")
    leaf = deep.leaf("n1", uris=[uri(Role.MASTER)])

    verdict = refused((leaf, deep.der, issuing.der), COMPANY, Role.MASTER)
    assert "path length" in verdict.detail

    chain = [ROOT]
    for number in range(4):
        chain.append(chain[-1].below(f"level {number}"))
    leaf = chain[-1].leaf("n1", uris=[uri(Role.MASTER)])
    long = (leaf, *(ca.der for ca in reversed(chain[2:])))
    assert len(long) == 4
    refused(long, COMPANY, Role.MASTER)


@pytest.mark.parametrize("role", Role)
def test_a_certificate_that_was_taken_back_is_refused(role: Role):
    """Threat: 42."""
    leaf = CAS[role].leaf("n1", uris=[uri(role)])

    verdict = refused((leaf,), anchors(role, crls=(CAS[role].crl(leaf),)), role)

    assert verdict.reason is Reason.REVOKED
    assert "took the certificate back at 2027-01-15 07:59:00 UTC" in verdict.detail


CA = CAS[Role.MASTER]
PART = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=True,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)


@pytest.mark.parametrize(
    ("crls", "told"),
    [
        ((), "there is no revocation list"),
        ((CAS[Role.WORKER].crl(),), "there is no revocation list"),
        ((CA.crl(ends_at=NOW - 1),), "ended at 2027-01-15 07:59:59 UTC"),
        ((CA.crl(ends_at=NOW),), "ended at"),
        ((CA.crl(key=new_key()),), "has a wrong signature"),
        ((CA.crl(begins_at=NOW + 1000, ends_at=NOW + DAY),), "is not valid before"),
        ((CA.crl(more=((PART, True),)),), "is only a part"),
        ((b"garbage",), "cannot be read"),
    ],
    ids=["none", "other's", "stale", "ends now", "forged", "future", "part", "broken"],
)
def test_without_a_list_that_counts_nobody_passes(crls, told: str):
    """Threat: 42."""
    leaf = CA.leaf("n1", uris=[uri(Role.MASTER)])
    given = anchors(Role.MASTER, crls=crls, crl_required=True)

    verdict = refused((leaf,), given, Role.MASTER)

    assert verdict.reason is Reason.CRL
    assert told in verdict.detail


def test_a_list_counts_though_none_is_required():
    """Threat: 42."""
    leaf = CA.leaf("n1", uris=[uri(Role.MASTER)])

    stale = refused(
        (leaf,), anchors(Role.MASTER, crls=(CA.crl(ends_at=NOW - 1),)), Role.MASTER
    )

    assert stale.reason is Reason.CRL


def test_a_ca_that_may_sign_no_lists_has_none():
    """Threat: 42."""
    ca = Authority.root("no lists", signs_lists=False)
    given = Anchors((ca.der,), crls=(ca.crl(),))

    verdict = refused((ca.leaf("n1", uris=[uri(Role.MASTER)]),), given, Role.MASTER)

    assert verdict.reason is Reason.CRL
    assert "no cRLSign" in verdict.detail


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["leaf", "between", "root"])
def test_a_revoked_key_is_refused_wherever_it_is_in_the_chain(role: Role, place: int):
    """Threat: 43."""
    middle = ROOT.below("middle")
    chain = (middle.leaf("n1", uris=[uri(role)]), middle.der)
    found = verify_untrusted(chain, COMPANY, role=role, now=NOW)
    assert isinstance(found, Certified)
    revoked = RevokedKey(found.key_ids[place], "ecdsa-sha2-nistp256 AAAA")

    verdict = judged(role, chain, anchors=COMPANY, revoked=(revoked,))
    early = refuses_chain(
        chain, TrustBook(anchors=COMPANY, revoked=(revoked,)), role=role, now=NOW
    )

    assert (verdict.decision, verdict.reason) == (Decision.NO, Reason.REVOKED)
    assert early is not None  # before TLS
    assert early.reason is Reason.REVOKED


@pytest.mark.parametrize("role", Role)
def test_an_ed25519_ca_is_told_at_the_start(tmp_path: Path, role: Role):
    """Threat: 51."""
    ca = Authority.root("ed", key=ed25519.Ed25519PrivateKey.generate())
    path = tmp_path / f"{role.value}s-ca.pem"
    path.write_bytes(CAS[role].pem + ca.pem)

    with pytest.raises(CertificateFileError) as caught:
        read_anchors(tmp_path, role)

    assert caught.value.what == f"{path} cannot be used"
    assert "certificate 2: its key is Ed25519" in str(caught.value.why)
    assert "aemesh ca init" in str(caught.value.hint)
    # And if a file came to be one as we ran: nobody is certified by it.
    leaf = ca.leaf("n1", uris=[uri(role)])
    assert "is Ed25519" in refused((leaf,), Anchors((ca.der,)), role).detail


def test_a_certificate_that_ended_or_was_revoked_is_let_into_no_group():
    """Between its end and the next look at its link it was under no terms at all.

    Threat: 38, 43
    """
    chain = (CAS[Role.MASTER].leaf("n1", uris=[uri(Role.MASTER)], ends_at=NOW + DAY),)
    blob = (
        CAS[Role.MASTER]
        .key.public_key()
        .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    )
    openssh = blob.decode()
    key_id = KeyId.of_blob(base64.b64decode(openssh.split()[1]))
    terms = Terms(groups=("render",))
    line = AuthorizedKey(key_id, openssh, terms, cert_authority=True, principals=("*",))
    book = TrustBook(anchors=anchors(Role.MASTER), authorized=(line,))
    peer = Peer(
        role=Role.MASTER,
        name=NodeName("n1"),
        key=PublicKey(b"k" * 32),
        mode=Mode.X509,
        address="192.0.2.7:7472",
        chain=chain,
    )

    def allowed(group: str, now: float, book: TrustBook = book) -> bool:
        return allow_group(terms_of(peer, book, now=now), GroupName(group))

    assert allowed("render", NOW)
    assert not allowed("other", NOW)
    assert not allowed("render", NOW + 2 * DAY)
    assert not allowed("other", NOW + 2 * DAY)
    revoked = replace(book, revoked=(RevokedKey(key_id, openssh),))
    assert not allowed("render", NOW, revoked)
