"""Whether to work with a peer: one table of cases for `judge`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    AuthorizedKey,
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Principal,
    Reason,
    RevokedKey,
    Role,
    Terms,
    TokenProof,
    TrustBook,
    Verdict,
)
from aemesh.policy.trust import TrustPolicy, changed_key_message, judge, terms_of

KEY, KEY2, KEY3 = (PublicKey(bytes([n]) * 32) for n in (1, 2, 3))
NAME = NodeName("desk")


def known(name: str, key: PublicKey, **more: object) -> KnownPeer:
    peer = KnownPeer(NodeName(name), key, via="tofu", added="20261120", line=3)
    return replace(peer, **more)


def dead(key: PublicKey) -> RevokedKey:
    return RevokedKey(key.key_id, key.openssh)


def peer_of(us: Role, **changes: object) -> Peer:
    peer = Peer(us.other, NAME, KEY, Mode.LEAP, "192.0.2.7:7472")
    return replace(peer, **changes)


EMPTY = TrustBook()
KNOWN = TrustBook(known=(known("desk", KEY),))
CHANGED = TrustBook(known=(known("desk", KEY2),))
OTHER = TrustBook(known=(known("other", KEY2),))
RENAMED = TrustBook(known=(known("old", KEY),))
REVOKED = TrustBook(known=(known("desk", KEY),), revoked=(dead(KEY),))
W, M = Role.WORKER, Role.MASTER
OK, PENDING, NO = Decision.OK, Decision.PENDING, Decision.NO

# What the book says; what the user asked for; and what comes of it.
FOR_BOTH = [
    (EMPTY, {}, PENDING, Reason.UNKNOWN),
    (KNOWN, {}, OK, Reason.KNOWN),
    (RENAMED, {}, OK, Reason.KNOWN),
    (CHANGED, {}, NO, Reason.KEY_CHANGED),
    (CHANGED, {"trusted_keys": frozenset({KEY.key_id})}, NO, Reason.KEY_CHANGED),
    (CHANGED, {"accept_first": True, "accept_new": True}, NO, Reason.KEY_CHANGED),
    (CHANGED, {"mode": Mode.OPEN}, NO, Reason.WEAKER),
    (REVOKED, {}, NO, Reason.REVOKED),
    (REVOKED, {"trusted_keys": frozenset({KEY.key_id})}, NO, Reason.REVOKED),
    (REVOKED, {"mode": Mode.OPEN}, NO, Reason.REVOKED),
    (EMPTY, {"trusted_keys": frozenset({KEY.key_id})}, OK, Reason.ACCEPTED),
    (EMPTY, {"trusted_keys": frozenset({KEY2.key_id})}, PENDING, Reason.UNKNOWN),
    (OTHER, {"trusted_keys": frozenset({KEY.key_id})}, OK, Reason.ACCEPTED),
    (EMPTY, {"declined": frozenset({KEY.key_id})}, NO, Reason.DECLINED),
    # Who said no and then `aemesh trust accept` has changed their mind.
    (KNOWN, {"declined": frozenset({KEY.key_id})}, OK, Reason.KNOWN),
    (EMPTY, {"mode": Mode.OPEN}, OK, Reason.OPEN),
    (
        EMPTY,
        {
            "accept_first": True,
            "accept_new": True,
            "declined": frozenset({KEY.key_id}),
        },
        NO,
        Reason.DECLINED,
    ),
]
FOR_ONE = [
    (W, OTHER, {}, NO, Reason.OWNED),
    (W, OTHER, {"accept_first": True}, NO, Reason.OWNED),  # it imprints once
    (W, EMPTY, {"accept_first": True}, OK, Reason.FIRST_USE),
    (W, EMPTY, {"accept_new": True}, PENDING, Reason.UNKNOWN),
    (M, OTHER, {}, PENDING, Reason.UNKNOWN),
    (M, OTHER, {"accept_new": True}, OK, Reason.FIRST_USE),
    (M, EMPTY, {"accept_first": True}, PENDING, Reason.UNKNOWN),
]
TABLE = [(role, *row) for role in Role for row in FOR_BOTH] + FOR_ONE


@pytest.mark.parametrize(("role", "book", "asked", "decision", "reason"), TABLE)
def test_judge_says_what_the_table_says(role, book, asked, decision, reason):
    policy = TrustPolicy(role=role, **asked)

    verdict = judge(peer_of(role, mode=policy.mode), book, policy)

    assert (verdict.decision, verdict.reason) == (decision, reason)
    assert verdict.detail.isprintable()


# Of a peer whose key is known in mode leap, and who proves nothing else.
SAME_MODE = {
    Mode.OPEN: Reason.WEAKER,
    Mode.LEAP: Reason.KNOWN,
    Mode.TOKEN: Reason.KNOWN,
    Mode.GSS: Reason.PRINCIPAL,
    Mode.X509: Reason.CERTIFICATE,
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("ours", Mode)
@pytest.mark.parametrize("theirs", Mode)
def test_two_modes_never_meet(role, ours, theirs):
    """Threat: 45."""
    policy = TrustPolicy(role=role, mode=ours)

    verdict = judge(peer_of(role, mode=theirs), KNOWN, policy)

    assert (verdict.reason is Reason.MODE) == (ours is not theirs)
    if ours is theirs:
        assert verdict.reason is SAME_MODE[ours]


@pytest.mark.parametrize("role", Role)
def test_a_peer_of_our_own_role_is_refused_even_if_its_key_is_known(role):
    """Threat: 80."""
    policy = TrustPolicy(role=role, mode=Mode.OPEN, accept_first=True, accept_new=True)
    peer = peer_of(role, role=role, mode=Mode.OPEN)

    assert judge(peer, KNOWN, policy).reason is Reason.ROLE


@pytest.mark.parametrize("role", Role)
def test_whoever_answers_for_another_is_refused(role):
    """Threat: 24."""
    policy = TrustPolicy(role=role, accept_new=True)
    peer = peer_of(role)

    verdict = judge(peer, KNOWN, policy, expected=KEY2.key_id)

    assert verdict == Verdict(NO, Reason.EXPECTED_OTHER, f"{KEY2.key_id} was dialled")
    assert judge(peer, KNOWN, policy, expected=KEY.key_id).decision is OK


@pytest.mark.parametrize("role", Role)
def test_a_key_that_is_not_mentioned_revokes_nobody_else(role):
    book = TrustBook(known=(known("desk", KEY),), revoked=(dead(KEY3),))

    assert judge(peer_of(role), book, TrustPolicy(role=role)).decision is OK


def test_the_message_about_a_changed_key_names_both_keys_and_the_way_out():
    """Threat: 23."""
    text = changed_key_message(peer_of(M), CHANGED, file="known_workers")

    assert "REMOTE IDENTIFICATION HAS CHANGED" in text
    assert str(KEY.key_id) in text
    assert str(KEY2.key_id) in text
    assert "known_workers:3" in text
    assert "aemesh trust forget desk" in text


# --- downgrades ---------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("line", [known("old", KEY), known("desk", KEY2)])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        (Mode.X509, Mode.LEAP),
        (Mode.X509, Mode.GSS),
        (Mode.X509, Mode.OPEN),
        (Mode.GSS, Mode.LEAP),
        (Mode.GSS, Mode.OPEN),
        (Mode.TOKEN, Mode.OPEN),
        (Mode.LEAP, Mode.OPEN),
    ],
)
def test_who_was_seen_in_a_stronger_mode_is_refused_in_a_weaker_one(
    role, line, before, now
):
    """Threat: 44: by its key or by its name, whatever the user asks for (T11)."""
    book = TrustBook(known=(replace(line, mode=before),))
    policy = TrustPolicy(
        role=role,
        mode=now,
        accept_first=True,
        accept_new=True,
        trusted_keys=frozenset({KEY.key_id}),
    )
    peer = peer_of(role, mode=now, principal="alice@R", token=TokenProof("t"))

    verdict = judge(peer, book, policy)

    assert (verdict.decision, verdict.reason) == (NO, Reason.WEAKER)
    assert before.value in verdict.detail
    assert now.value in verdict.detail


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("before", "now"),
    [(Mode.TOKEN, Mode.LEAP), (Mode.LEAP, Mode.LEAP), (Mode.OPEN, Mode.LEAP)],
)
def test_a_mode_that_proves_as_much_is_no_downgrade(role, before, now):
    book = TrustBook(known=(known("desk", KEY, mode=before),))

    verdict = judge(peer_of(role, mode=now), book, TrustPolicy(role=role, mode=now))

    assert (verdict.decision, verdict.reason) == (OK, Reason.KNOWN)


def test_a_stronger_line_of_somebody_else_is_no_matter():
    book = TrustBook(
        known=(known("desk", KEY), known("other", KEY2, mode=Mode.X509)),
    )

    assert judge(peer_of(M), book, TrustPolicy(role=M)).decision is OK


# --- terms --------------------------------------------------------------------------

THEN = 1_800_000_000.0
TERMS = [
    (Terms(sources=("192.0.2.0/24",)), None),
    (Terms(sources=("192.0.2.*",)), None),
    (Terms(sources=("198.51.100.0/24",)), Reason.SOURCE),
    (Terms(sources=("192.0.2.0/24", "!192.0.2.7")), Reason.SOURCE),
    (Terms(users=("alice",)), None),
    (Terms(users=("bob", "al*")), None),
    (Terms(users=("bob",)), Reason.USER),
    (Terms(users=("*", "!alice")), Reason.USER),
    (Terms(expires_at=THEN + 1), None),
    (Terms(expires_at=THEN), Reason.EXPIRED),
    (Terms(expires_at=THEN - 1), Reason.EXPIRED),
    (Terms(groups=("B",)), None),  # of groups is asked when there is one
]


def authorized(key: PublicKey, terms: Terms | None = None) -> AuthorizedKey:
    return AuthorizedKey(key.key_id, key.openssh, terms or Terms(), line=1)


def judged(book: TrustBook, policy: TrustPolicy, **of_peer: object) -> Verdict:
    peer = peer_of(policy.role, mode=policy.mode, **of_peer)
    return judge(peer, book, policy, now=THEN)


@pytest.mark.parametrize(("terms", "reason"), TERMS)
def test_the_terms_of_a_line_hold(terms, reason):
    policy = TrustPolicy(role=W, user="alice")
    plain = known("desk", KEY)
    books = [
        TrustBook(known=(replace(plain, terms=terms),)),
        TrustBook(authorized=(authorized(KEY, terms),)),
        # Each of two lines has to allow it.
        TrustBook(known=(plain,), authorized=(authorized(KEY, terms),)),
        TrustBook((replace(plain, terms=terms),), authorized=(authorized(KEY),)),
    ]

    for book in books:
        verdict = judged(book, policy)
        assert verdict.decision is (NO if reason else OK)
        assert verdict.reason is (reason or Reason.KNOWN)


@pytest.mark.parametrize(("terms", "reason"), TERMS)
def test_the_terms_of_a_principal_and_of_a_token_hold(terms, reason):
    gss = TrustPolicy(role=W, mode=Mode.GSS, user="alice")
    book = TrustBook(principals=(Principal("alice@R", terms),))
    leap = TrustPolicy(role=W, user="alice")

    by_name = judged(book, gss, principal="alice@R")
    by_token = judged(EMPTY, leap, token=TokenProof("t", terms=terms))

    assert by_name.reason is (reason or Reason.PRINCIPAL)
    assert by_token.reason is (reason or Reason.TOKEN)
    assert by_name.decision is by_token.decision is (NO if reason else OK)


def test_a_line_that_has_ended_is_not_one_of_first_use():
    """An expired line refuses; nobody is asked, and no flag makes it good again."""
    book = TrustBook(known=(known("desk", KEY, terms=Terms(expires_at=THEN)),))
    policy = TrustPolicy(role=M, accept_new=True, trusted_keys=frozenset({KEY.key_id}))

    assert judged(book, policy).reason is Reason.EXPIRED


def test_a_peer_is_let_in_under_the_terms_of_every_line_of_its_key():
    one, two = Terms(groups=("A",)), Terms(groups=("*",))
    book = TrustBook(
        known=(known("desk", KEY, terms=one),), authorized=(authorized(KEY, two),)
    )

    assert set(terms_of(peer_of(W), book, now=THEN)) == {one, two}
    assert terms_of(peer_of(W, key=KEY2), book, now=THEN) == ()
    by_name = TrustBook(principals=(Principal("alice@R", one),))
    peer = peer_of(W, mode=Mode.GSS, principal="alice@R")
    assert terms_of(peer, by_name, now=THEN) == (one,)


# --- authorized keys, tokens, principals --------------------------------------------


def test_an_authorized_master_is_known_under_any_name_and_owns_the_worker():
    book = TrustBook(authorized=(authorized(KEY),))
    policy = TrustPolicy(role=W, accept_first=True)

    assert judged(book, policy).reason is Reason.KNOWN
    assert judged(book, policy, name=NodeName("x")).reason is Reason.KNOWN
    assert judged(book, policy, key=KEY2).reason is Reason.OWNED


def test_the_key_of_an_authority_is_no_key_of_a_master():
    line = replace(authorized(KEY), cert_authority=True)

    verdict = judged(TrustBook(authorized=(line,)), TrustPolicy(role=W))

    assert verdict.reason is Reason.OWNED


def test_an_authorized_key_that_is_revoked_is_refused():
    """Threat: 43."""
    book = TrustBook(authorized=(authorized(KEY),), revoked=(dead(KEY),))

    assert judged(book, TrustPolicy(role=W)).reason is Reason.REVOKED


TOKENS = [
    (TokenProof("t"), {}, OK, Reason.TOKEN),
    (TokenProof("t"), {"by_token": True}, OK, Reason.TOKEN),
    (TokenProof("t"), {"declined": frozenset({KEY.key_id})}, NO, Reason.DECLINED),
    (None, {"by_token": True, "accept_first": True}, NO, Reason.TOKEN_KEY),
    (None, {}, PENDING, Reason.UNKNOWN),
    *(
        (TokenProof("t", refused=reason), {"accept_first": True}, NO, reason)
        for reason in (
            Reason.TOKEN_UNKNOWN,
            Reason.TOKEN_SPENT,
            Reason.TOKEN_EXPIRED,
            Reason.TOKEN_ROLE,
            Reason.TOKEN_KEY,
            Reason.REVOKED,
        )
    ),
]


@pytest.mark.parametrize(("proof", "asked", "decision", "reason"), TOKENS)
def test_a_token_introduces_its_holder_or_nobody(proof, asked, decision, reason):
    """Threat: 52."""
    verdict = judged(EMPTY, TrustPolicy(role=W, **asked), token=proof)

    assert (verdict.decision, verdict.reason) == (decision, reason)


def test_a_token_does_not_excuse_a_changed_or_a_revoked_key():
    """Threat: 52."""
    for book, reason in (
        (CHANGED, Reason.KEY_CHANGED),
        (REVOKED, Reason.REVOKED),
    ):
        assert judged(book, TrustPolicy(role=M), token=TokenProof("t")).reason is reason


def test_a_known_key_needs_its_token_no_more():
    spent = TokenProof("t", refused=Reason.TOKEN_SPENT)

    assert judged(KNOWN, TrustPolicy(role=M), token=spent).reason is Reason.KNOWN


GSS = [
    (W, "alice@R", OK, Reason.PRINCIPAL),
    (W, "mallory@R", NO, Reason.UNLISTED),
    (W, "alice@OTHER", NO, Reason.UNLISTED),
    (W, "Alice@R", NO, Reason.UNLISTED),
    (W, "", NO, Reason.PRINCIPAL),
    (M, "host/lab-1@R", OK, Reason.PRINCIPAL),
    (M, "", NO, Reason.PRINCIPAL),
]


@pytest.mark.parametrize(("role", "name", "decision", "reason"), GSS)
def test_kerberos_names_and_the_list_admits(role, name, decision, reason):
    """Threat: 57."""
    book = TrustBook(principals=(Principal("alice@R"),) if role is W else ())
    policy = TrustPolicy(role=role, mode=Mode.GSS, accept_first=True, accept_new=True)

    verdict = judged(book, policy, principal=name)

    assert (verdict.decision, verdict.reason) == (decision, reason)


def test_a_principal_does_not_excuse_a_changed_or_a_revoked_key():
    """Threat: 57."""
    policy = TrustPolicy(role=M, mode=Mode.GSS)

    for book, reason in (
        (CHANGED, Reason.KEY_CHANGED),
        (REVOKED, Reason.REVOKED),
    ):
        assert judged(book, policy, principal="a@R").reason is reason


# --- order --------------------------------------------------------------------------


def test_of_several_reasons_the_earlier_rule_is_told():
    """Each step mends the reason that was told, and the next one is."""
    book = TrustBook(
        known=(known("desk", KEY2, mode=Mode.X509), known("other", KEY3)),
        revoked=(dead(KEY),),
    )
    policy = TrustPolicy(
        role=W, declined=frozenset({KEY.key_id}), by_token=True, accept_first=True
    )
    peer = peer_of(W, role=W, mode=Mode.GSS)
    told = []

    def ask(peer: Peer, book: TrustBook, expected=None) -> None:
        told.append(judge(peer, book, policy, expected=expected, now=THEN).reason)

    ask(peer, book, KEY2.key_id)
    peer = replace(peer, role=M)
    ask(peer, book, KEY2.key_id)
    ask(peer, book)
    book = replace(book, revoked=())
    ask(peer, book)
    peer = replace(peer, mode=Mode.LEAP)
    ask(peer, book)
    book = replace(book, known=tuple(replace(p, mode=Mode.LEAP) for p in book.known))
    ask(peer, book)
    book = replace(book, known=book.known[1:])
    ask(peer, book)
    policy = replace(policy, declined=frozenset())
    ask(peer, book)
    policy = replace(policy, by_token=False)
    ask(peer, book)
    book = EMPTY
    ask(peer, book)

    assert told == [
        Reason.ROLE,
        Reason.EXPECTED_OTHER,
        Reason.REVOKED,
        Reason.MODE,
        Reason.WEAKER,
        Reason.KEY_CHANGED,
        Reason.DECLINED,
        Reason.TOKEN_KEY,
        Reason.OWNED,
        Reason.FIRST_USE,
    ]


# --- the window of enrolment --------------------------------------------------------

WINDOWS = [
    ({}, Reason.FIRST_USE),
    ({"enrol_until": THEN + 1}, Reason.FIRST_USE),
    ({"enrol_until": THEN}, Reason.UNKNOWN),
    ({"enrol_until": THEN - 600}, Reason.UNKNOWN),
    ({"enrol_from": ("192.0.2.0/24",)}, Reason.FIRST_USE),
    ({"enrol_from": ("198.51.100.0/24", "10.0.0.0/8")}, Reason.UNKNOWN),
    ({"enrol_from": ("192.0.2.0/24", "!192.0.2.7")}, Reason.UNKNOWN),
    ({"enrol_until": THEN + 1, "enrol_from": ("10.0.0.0/8",)}, Reason.UNKNOWN),
    ({"enrol_until": THEN - 1, "enrol_from": ("192.0.2.0/24",)}, Reason.UNKNOWN),
]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("window", "reason"), WINDOWS)
def test_outside_the_window_or_the_networks_a_person_is_asked(role, window, reason):
    """Threat: 34."""
    policy = TrustPolicy(role=role, accept_first=True, accept_new=True, **window)

    verdict = judged(EMPTY, policy)

    assert verdict.reason is reason
    assert verdict.decision is (OK if reason is Reason.FIRST_USE else PENDING)


def test_the_window_binds_nobody_who_is_known_or_was_named():
    """Threat: 34: it is about whom nobody vouched for."""
    policy = TrustPolicy(
        role=W,
        accept_first=True,
        enrol_until=THEN - 1,
        trusted_keys=frozenset({KEY2.key_id}),
    )

    assert judged(KNOWN, policy).reason is Reason.KNOWN
    assert judged(EMPTY, policy, key=KEY2).reason is Reason.ACCEPTED


@pytest.mark.parametrize(("terms", "reason"), TERMS)
def test_the_terms_of_a_known_line_hold_in_mode_gss_too(terms, reason):
    """They narrow what the principal may, and were passed over.  Shows: T4."""
    gss = TrustPolicy(role=W, mode=Mode.GSS, user="alice")
    line = known("desk", KEY, mode=Mode.GSS, terms=terms)
    book = TrustBook(known=(line,), principals=(Principal("alice@R"),))

    assert judged(book, gss, principal="alice@R").reason is (reason or Reason.PRINCIPAL)
    peer = peer_of(W, mode=Mode.GSS, principal="alice@R")
    assert terms in terms_of(peer, book, now=THEN)
