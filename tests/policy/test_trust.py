"""Whether to work with a peer: one table of cases for `judge`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    RevokedKey,
    Role,
    TrustBook,
    Verdict,
)
from aemesh.policy.trust import TrustPolicy, changed_key_message, judge

KEY, KEY2, KEY3 = (PublicKey(bytes([n]) * 32) for n in (1, 2, 3))
NAME = NodeName("desk")


def known(name: str, key: PublicKey) -> KnownPeer:
    return KnownPeer(NodeName(name), key, via="tofu", added="20261120", line=3)


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
    (CHANGED, {"mode": Mode.OPEN}, NO, Reason.KEY_CHANGED),
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


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("ours", Mode)
@pytest.mark.parametrize("theirs", Mode)
def test_two_modes_never_meet(role, ours, theirs):
    """Threat: 45."""
    policy = TrustPolicy(role=role, mode=ours)

    verdict = judge(peer_of(role, mode=theirs), KNOWN, policy)

    assert (verdict.reason is Reason.MODE) == (ours is not theirs)
    assert (verdict.decision is OK) == (ours is theirs)


@pytest.mark.parametrize("role", Role)
def test_a_peer_of_our_own_role_is_refused_even_if_its_key_is_known(role):
    """Threat: 80."""
    policy = TrustPolicy(role=role, mode=Mode.OPEN, accept_first=True, accept_new=True)
    peer = peer_of(role, role=role, mode=Mode.OPEN)

    assert judge(peer, KNOWN, policy).reason is Reason.ROLE


@pytest.mark.parametrize("role", Role)
def test_whoever_answers_for_another_is_refused(role):
    """Threat: 24."""
    policy = TrustPolicy(role=role, mode=Mode.OPEN, accept_new=True)
    peer = peer_of(role, mode=Mode.OPEN)

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
