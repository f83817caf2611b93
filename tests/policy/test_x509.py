"""What a certificate chain proves: one table of leaves, one of names, one of lists."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.trust import Anchors, Decision, Reason, Role, Verdict
from aemesh.policy.certificates import is_pattern, is_site
from aemesh.policy.x509 import (
    Certified,
    authority_fault,
    read_claim,
    verify_untrusted,
)
from aemesh.testing.pki import NOW, Authority, new_key

URI = "aemesh://lab/master/m1"
CA = Authority.root("masters CA", path_length=0)
ANCHORS = Anchors((CA.der,), site="lab")

ROOT = Authority.root("company root")
MIDDLE = ROOT.below("company middle")
ISSUING = MIDDLE.below("company issuing", path_length=0)


def verify(*chain: bytes, anchors: Anchors = ANCHORS, role=Role.MASTER, now=NOW):
    return verify_untrusted(chain, anchors, role=role, now=now)


def ed(key: Authority | bytes) -> KeyId:
    der = key if isinstance(key, bytes) else key.der
    public = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public, ed25519.Ed25519PublicKey)
    return PublicKey(public.public_bytes_raw()).key_id


# --- what is taken ----------------------------------------------------------------


@pytest.mark.parametrize(
    "make_key",
    [
        ed25519.Ed25519PrivateKey.generate,
        new_key,
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "p256", "p384", "rsa2048"],
)
def test_a_leaf_of_each_kind_of_key_is_certified(make_key):
    """Shows: T3."""
    found = verify(CA.leaf("m1", uris=[URI], key=make_key()))

    assert isinstance(found, Certified)
    assert (found.role, found.name, found.identity) == (Role.MASTER, "m1", URI)
    assert len(found.key_ids) == 2
    assert found.key_ids[0] == found.key_id


def test_the_fingerprint_of_a_node_key_is_that_of_the_node():
    leaf = CA.leaf("m1", uris=[URI], key=ed25519.Ed25519PrivateKey.generate())

    found = verify(leaf)

    assert isinstance(found, Certified)
    assert found.key_id == ed(leaf)


@pytest.mark.parametrize("with_root", [False, True])
def test_a_company_has_cas_between_and_all_their_keys_are_told(with_root: bool):
    leaf = ISSUING.leaf("pc", uris=[URI])
    chain = [leaf, ISSUING.der, MIDDLE.der, *([ROOT.der] if with_root else [])]

    found = verify(*chain, anchors=Anchors((ROOT.der,)))

    assert isinstance(found, Certified)
    assert len(set(found.key_ids)) == 4


def test_the_last_second_of_a_certificate_counts():
    leaf = CA.leaf("m1", uris=[URI], begins_at=NOW, ends_at=NOW + 10)

    assert isinstance(verify(leaf, now=NOW), Certified)
    assert isinstance(verify(leaf, now=NOW + 10), Certified)
    assert isinstance(verify(leaf, now=NOW + 11), Verdict)


# --- what is not ------------------------------------------------------------------

REFUSED = {
    "no chain": ((), "there is no certificate"),
    "garbage": ((b"\x30\x03\x02\x01\x01",), "the certificate cannot be read"),
    "trailing bytes": ((CA.leaf("m1", uris=[URI]) + b"\0",), "cannot be read"),
    "too many": ((CA.leaf("m1", uris=[URI]),) * 5, "5 certificates, expected 4"),
    "too long": (
        (CA.leaf("m1", uris=[f"aemesh://lab/master/{'m' * 5000}"]),),
        f"expected {limits.PREAMBLE_CERT_BYTES} at most",
    ),
    "no names": ((CA.leaf("m1"),), "names nobody: no subjectAltName"),
    "no clientAuth": (
        (CA.leaf("m1", uris=[URI], purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),),
        "no clientAuth",
    ),
    "no purposes": ((CA.leaf("m1", uris=[URI], purposes=[]),), "no clientAuth"),
    "any purpose": (
        (
            CA.leaf(
                "m1",
                uris=[URI],
                purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
            ),
        ),
        "no clientAuth",
    ),
    "no signatures": (
        (CA.leaf("m1", uris=[URI], signs=False),),
        "no digitalSignature",
    ),
    "a CA": ((CA.der,), "is a CA's, not a node's"),
    "a curve": (
        (CA.leaf("m1", uris=[URI], key=ec.generate_private_key(ec.SECP521R1())),),
        "on the curve secp521r1",
    ),
    "weak RSA": (
        (CA.leaf("m1", uris=[URI], key=rsa.generate_private_key(65537, 1024)),),
        "RSA key has 1024 bits",
    ),
    "two names": ((CA.leaf("m1", uris=[URI, f"{URI}2"]),), "2 aemesh names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_profile_is_refused_with_its_reason(case: str):
    chain, detail = REFUSED[case]

    verdict = verify(*chain)

    assert isinstance(verdict, Verdict)
    assert (verdict.decision, verdict.reason) == (Decision.NO, Reason.CERTIFICATE)
    assert detail in verdict.detail


def test_without_a_ca_nobody_is_certified():
    verdict = verify(CA.leaf("m1", uris=[URI]), anchors=Anchors())

    assert isinstance(verdict, Verdict)
    assert verdict.detail == "no CA is set up here"


def test_a_refusal_names_the_ca_that_was_asked_for():
    verdict = verify(Authority.root("other CA").leaf("m1", uris=[URI]))

    assert isinstance(verdict, Verdict)
    assert verdict.detail == 'no CA of ours signed it: it is signed by "CN=other CA"'


def test_a_ca_that_has_ended_is_named():
    old = Authority.root("old CA", ends_at=NOW - 1)

    verdict = verify(old.leaf("m1", uris=[URI]), anchors=Anchors((old.der,)))

    assert isinstance(verdict, Verdict)
    assert verdict.detail == 'our CA "CN=old CA" has expired'


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "aemesh://other/master/m1",
        "aemesh://lab/worker/m1",
        "aemesh://lab/Master/m1",
        "aemesh://LAB/master/m1",
        "AEMESH://lab/master/m1",
        "aemesh://lab/master/",
        "aemesh://lab/master/m1/",
        "aemesh://lab/master/-m1",
        "aemesh://lab/master/m%31",
        "aemesh://lab/master/m1?x",
        "aemesh://lab:1/master/m1",
        "aemesh://me@lab/master/m1",
        "aemesh:lab/master/m1",
        "aemesh://lab/master/" + "m" * 65,
    ],
)
def test_an_aemesh_name_that_is_not_quite_right_is_refused(uri: str):
    """One that is wrong is not passed over for a DNS name that would do."""
    leaf = CA.leaf("m1", uris=[uri], hosts=["m1.example.org"])
    anchors = Anchors((CA.der,), site="lab", dns="*.example.org")

    assert isinstance(verify(leaf, anchors=anchors), Verdict)


def test_without_a_site_any_is_taken():
    leaf = CA.leaf("m1", uris=["aemesh://else.where/master/m1"])

    assert isinstance(verify(leaf, anchors=Anchors((CA.der,))), Certified)


@pytest.mark.parametrize(
    ("pattern", "hosts", "name"),
    [
        ("*.workers.example.org", ["pc7.workers.example.org"], "pc7"),
        ("*.workers.example.org", ["PC7.Workers.Example.ORG", "pc7"], "pc7"),
        ("ws-*.example.org", ["ws-12.example.org"], "12"),
        ("*-ws.example.org", ["lab-3-ws.example.org"], "lab-3"),
        ("pc.*.example.org", ["pc.floor2.example.org"], "floor2"),
        ("boss.example.org", ["boss.example.org"], "boss"),
        ("*.workers.example.org", ["a.b.workers.example.org"], None),
        ("*.workers.example.org", ["*.workers.example.org"], None),
        ("*.workers.example.org", ["workers.example.org"], None),
        ("*.workers.example.org", [".workers.example.org"], None),
        ("*.workers.example.org", ["pc7.workersXexample.org"], None),
        ("*.workers.example.org", ["pc7.workers.example.org.evil.net"], None),
        ("*.example.org", ["pc7.example.org", "pc8.example.org"], None),
        ("", ["pc7.example.org"], None),
    ],
)
def test_a_dns_name_counts_if_the_pattern_fits_one(
    pattern: str, hosts: list[str], name: str | None
):
    anchors = Anchors((CA.der,), site="lab", dns=pattern)

    found = verify(CA.leaf("pc", hosts=hosts), anchors=anchors)

    assert (found.name if isinstance(found, Certified) else None) == name


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("*.workers.example.org", True),
        ("ws-*.example.org", True),
        ("boss.example.org", True),
        ("*", False),
        ("*.*.org", False),
        ("example.*", False),
        ("**.example.org", False),
        ("[ab].example.org", False),
        ("", False),
    ],
)
def test_what_is_a_pattern_of_dns_names(text: str, is_one: bool):
    assert is_pattern(text) is is_one


@pytest.mark.parametrize("text", ["", "a b", "a/b", "-a", "a" * 65, "\xe9", "lab\n"])
def test_what_cannot_be_a_site(text: str):
    assert not is_site(text)


# --- our own certificate ----------------------------------------------------------


def test_a_claim_is_read_without_any_ca():
    chain = (ISSUING.leaf("m1", uris=[URI]), ISSUING.der, MIDDLE.der)

    found = read_claim(chain, role=Role.MASTER, site="lab", dns="", now=NOW)

    assert isinstance(found, Certified)
    assert found.identity == URI


def test_a_chain_of_ours_in_the_wrong_order_is_told():
    chain = (ISSUING.leaf("m1", uris=[URI]), MIDDLE.der)

    found = read_claim(chain, role=Role.MASTER, site="lab", dns="", now=NOW)

    assert isinstance(found, Verdict)
    assert "did not sign the one before it" in found.detail


@pytest.mark.parametrize(
    ("der", "fault"),
    [
        (CA.der, ""),
        (CA.leaf("m1", uris=[URI]), "it is no CA's"),
        (b"\x30", "it cannot be read"),
        (
            Authority.root("x", key=ed25519.Ed25519PrivateKey.generate()).der,
            "its key is Ed25519",
        ),
    ],
)
def test_what_can_be_no_ca_of_ours(der: bytes, fault: str):
    found = authority_fault(der)

    assert found.startswith(fault) if fault else not found


# --- lists of what was taken back -------------------------------------------------


def lists(*crls: bytes, required: bool = False) -> Anchors:
    return Anchors((CA.der,), crls=crls, crl_required=required, site="lab")


def test_a_fresh_list_without_the_certificate_lets_it_pass():
    leaf, other = CA.leaf("m1", uris=[URI]), CA.leaf("m2", uris=[f"{URI}2"])

    assert isinstance(
        verify(leaf, anchors=lists(CA.crl(other), required=True)), Certified
    )
    revoked = verify(other, anchors=lists(CA.crl(other)))
    assert isinstance(revoked, Verdict)
    assert revoked.reason is Reason.REVOKED


def test_the_newest_list_decides():
    """A certificate that was taken back by mistake may be given back."""
    leaf = CA.leaf("m1", uris=[URI])
    before, after = CA.crl(leaf, begins_at=NOW - 100), CA.crl(begins_at=NOW - 50)

    assert isinstance(verify(leaf, anchors=lists(before, after)), Certified)
    assert isinstance(verify(leaf, anchors=lists(after, before)), Certified)


def test_a_list_of_another_ca_says_nothing_of_ours():
    other = Authority.root("other CA")
    leaf = CA.leaf("m1", uris=[URI])

    assert isinstance(verify(leaf, anchors=lists(other.crl())), Certified)
    missing = verify(leaf, anchors=lists(other.crl(), required=True))
    assert isinstance(missing, Verdict)
    assert missing.reason is Reason.CRL


def test_a_ca_that_got_a_new_key_has_two_lists():
    """Each counts for what its own key signed."""
    renewed = Authority.root("masters CA", path_length=0)
    anchors = Anchors(
        (CA.der, renewed.der), crls=(CA.crl(), renewed.crl()), crl_required=True
    )

    for ca in (CA, renewed):
        assert isinstance(verify(ca.leaf("m1", uris=[URI]), anchors=anchors), Certified)


@pytest.mark.parametrize(
    ("anchored", "sent"),
    [
        ((ROOT,), (MIDDLE, ISSUING)),
        ((ROOT, MIDDLE), (ISSUING,)),
        ((ISSUING, MIDDLE, ROOT), ()),
        ((ROOT, ISSUING, MIDDLE), (ISSUING, MIDDLE)),
    ],
)
@pytest.mark.parametrize(("by", "gone"), [(ROOT, MIDDLE), (MIDDLE, ISSUING)])
def test_a_ca_between_that_was_taken_back_takes_its_leaves_along(
    anchored, sent, by: Authority, gone: Authority
):
    """Also where it is trusted by name: the library stops at the first such CA."""
    leaf = ISSUING.leaf("m1", uris=[URI])
    chain = (leaf, *(ca.der for ca in sent))
    authorities = tuple(ca.der for ca in anchored)

    fine = verify(*chain, anchors=Anchors(authorities, crls=(by.crl(),)))
    verdict = verify(
        *chain, anchors=Anchors(authorities, crls=(by.crl(gone.certificate),))
    )

    assert isinstance(fine, Certified)
    assert isinstance(verdict, Verdict)
    assert verdict.reason is Reason.REVOKED


def test_every_ca_of_the_path_needs_a_list_if_one_is_required():
    leaf = ISSUING.leaf("m1", uris=[URI])
    chain = (leaf, ISSUING.der, MIDDLE.der)
    crls = (ISSUING.crl(), MIDDLE.crl(), ROOT.crl())

    def judged(*given: bytes):
        anchors = Anchors((ROOT.der,), crls=given, crl_required=True)
        return verify(*chain, anchors=anchors)

    assert isinstance(judged(*crls), Certified)
    for left_out in range(3):
        verdict = judged(*crls[:left_out], *crls[left_out + 1 :])
        assert isinstance(verdict, Verdict)
        assert verdict.reason is Reason.CRL


# --- strangers --------------------------------------------------------------------

HONEST = (ISSUING.leaf("m1", uris=[URI]), ISSUING.der, MIDDLE.der)
COMPANY = Anchors((ROOT.der,), crls=(ROOT.crl(), MIDDLE.crl(), ISSUING.crl()))


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_random_bytes_never_raise(chain: list[bytes]):
    assert isinstance(verify(*chain, anchors=COMPANY), Verdict)


@given(
    st.integers(0, 2),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_a_mutated_certificate_never_raises(which: int, changes):
    """It is refused, unless the bytes came out as they were or are not needed."""
    der = bytearray(HONEST[which])
    for place, value in changes:
        der[place % len(der)] = value
    chain = [*HONEST[:which], bytes(der), *HONEST[which + 1 :]]

    found = verify(*chain, anchors=COMPANY)

    if bytes(der) != HONEST[which]:
        assert isinstance(found, Verdict)
        assert found.detail


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4))
def test_a_mutated_list_or_ca_never_raises(changes):
    crl, ca = bytearray(ROOT.crl()), bytearray(ROOT.der)
    for place, value in changes:
        crl[place % len(crl)] = value
        ca[place % len(ca)] = value

    for anchors in (Anchors((ROOT.der,), crls=(bytes(crl),)), Anchors((bytes(ca),))):
        assert isinstance(verify(*HONEST, anchors=anchors), Certified | Verdict)


def test_a_certificate_has_one_form_only():
    """Where its signature ends in a zero bit, that bit could be called unused."""
    for _ in range(40):
        leaf = bytearray(CA.leaf("m1", uris=[URI]))
        signature = x509.load_der_x509_certificate(bytes(leaf)).signature
        leaf[-len(signature) - 1] = 1

        assert isinstance(verify(bytes(leaf)), Verdict)


def test_an_unknown_kind_of_key_is_refused():
    leaf = CA.leaf("m1", uris=[URI], key=ed448.Ed448PrivateKey.generate())

    verdict = verify(leaf)

    assert isinstance(verdict, Verdict)
    assert "is not Ed25519, P-256, P-384 or RSA" in verdict.detail
