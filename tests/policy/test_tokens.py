"""What a join token that we gave out is still good for: a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Reason, Role
from aemesh.policy.tokens import TokenRecord, TokenUse, ended, judge_token
from aemesh.policy.trust import _TOKEN_SAYS

NOW = 1_800_000_000.0
A, B = KeyId(b"a" * 32), KeyId(b"b" * 32)
USED = TokenUse(A, NodeName("office-1"), NOW - 5)
FRESH = TokenRecord(
    id="a2b3c4d5", role=Role.WORKER, count=1, issued_at=NOW - 10, expires_at=NOW + 10
)
SPENT = replace(FRESH, used_by=(USED,))


@pytest.mark.parametrize(
    ("record", "role", "key_id", "reason"),
    [
        (FRESH, Role.WORKER, A, None),
        (None, Role.WORKER, A, Reason.TOKEN_UNKNOWN),
        (replace(FRESH, revoked=True), Role.WORKER, A, Reason.REVOKED),
        (replace(FRESH, expires_at=NOW), Role.WORKER, A, Reason.TOKEN_EXPIRED),
        (FRESH, Role.MASTER, A, Reason.TOKEN_ROLE),
        (SPENT, Role.WORKER, B, Reason.TOKEN_SPENT),
        (SPENT, Role.WORKER, A, None),  # its answer was lost: it comes again
        (replace(SPENT, count=2), Role.WORKER, B, None),
        (replace(SPENT, expires_at=NOW - 1), Role.WORKER, A, Reason.TOKEN_EXPIRED),
        (replace(SPENT, revoked=True), Role.WORKER, A, Reason.REVOKED),
    ],
)
def test_a_token_lets_in_or_says_why_not(record, role, key_id, reason):
    """Threat: 52: unknown, revoked, expired, for the other role, spent."""
    assert judge_token(record, role=role, key_id=key_id, now=NOW) is reason


@pytest.mark.parametrize(
    ("names", "name", "reason"),
    [
        ((), "lab-1", None),
        (("office-*",), "office-3", None),
        (("office-*",), "lab-1", Reason.TOKEN_NAME),
        (("office-*", "!office-3"), "office-3", Reason.TOKEN_NAME),
    ],
)
def test_a_token_may_be_for_some_names_only(names, name, reason):
    record = replace(FRESH, names=names)

    found = judge_token(
        record, role=Role.WORKER, key_id=A, now=NOW, name=NodeName(name)
    )

    assert found is reason


def test_every_reason_has_a_sentence_for_the_verdict():
    """The table of trust says it to the other side."""
    reasons = {reason for reason in Reason if reason.value.startswith("token-")}

    assert reasons | {Reason.REVOKED, Reason.FULL} == set(_TOKEN_SAYS)


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 30)), max_size=30),
)
def test_no_more_keys_than_its_count_come_in_and_none_later(count, comers):
    """Threat: 52."""
    record, now = replace(FRESH, count=count), NOW
    for number, later in comers:
        now += later
        key = KeyId(bytes([number]) * 32)
        reason = judge_token(record, role=Role.WORKER, key_id=key, now=now)
        if reason is None:
            assert now < record.expires_at
            if not record.is_used_by(key):
                use = TokenUse(key, NodeName("n"), now)
                record = replace(record, used_by=(*record.used_by, use))
        elif reason is Reason.TOKEN_SPENT:
            assert not record.is_used_by(key)
            assert ended(record, now=now) is Reason.TOKEN_SPENT
        assert len({use.key_id for use in record.used_by}) == len(record.used_by)
        assert len(record.used_by) <= count
