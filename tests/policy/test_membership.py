"""The way of a worker through a group: the whole table, and what it does not name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import BugError
from aemesh.model.group import MemberState as S
from aemesh.model.names import GroupName
from aemesh.policy.membership import (
    LINKED_STATES,
    SERVING_STATES,
    TRANSITIONS,
    Happening,
    Membership,
)

H = Happening
A = GroupName("A")

# State by state, what leads where; whatever stands in no row cannot happen.
TABLE = {
    S.ANNOUNCED: {H.ANNOUNCED: S.ANNOUNCED, H.LINKED: S.LINKED},
    S.LINKED: {H.ACCEPTED: S.TRUSTED, H.BROKEN: S.ANNOUNCED},
    S.TRUSTED: {
        H.ASSIGNED: S.LEASED,
        H.SILENT: S.TRUSTED,
        H.HEARD: S.TRUSTED,
        H.LEAVING: S.DRAINING,
        H.PARTED: S.LEFT,
        H.BROKEN: S.LOST,
    },
    S.LEASED: {
        H.SILENT: S.SUSPECT,
        H.HEARD: S.LEASED,
        H.LEAVING: S.DRAINING,
        H.PARTED: S.LEFT,
        H.BROKEN: S.LOST,
    },
    S.SUSPECT: {
        H.SILENT: S.SUSPECT,
        H.HEARD: S.LEASED,
        H.LEAVING: S.DRAINING,
        H.PARTED: S.LEFT,
        H.BROKEN: S.LOST,
    },
    S.DRAINING: {
        H.SILENT: S.DRAINING,
        H.HEARD: S.DRAINING,
        H.LEAVING: S.DRAINING,
        H.STAYS: S.LEASED,
        H.RETIRED: S.TRUSTED,
        H.PARTED: S.LEFT,
        H.BROKEN: S.LOST,
    },
    S.LOST: {H.ANNOUNCED: S.ANNOUNCED, H.LINKED: S.LINKED},
    S.LEFT: {H.ANNOUNCED: S.ANNOUNCED, H.LINKED: S.LINKED},
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("happening", H)
def test_a_step_leads_where_the_table_says_or_nowhere(state, happening):
    member = Membership(state=state, group=A if state in SERVING_STATES else None)
    expected = TABLE[state].get(happening)

    if expected is None:
        with pytest.raises(BugError, match=state.value):
            member.step(happening, now=5.0)
        assert member.state is state
    else:
        assert member.step(happening, now=5.0) is expected
        assert member.since == (5.0 if expected is not state else 0.0)
    member.check()


@pytest.mark.parametrize("state", LINKED_STATES)
def test_a_link_can_break_in_every_state_that_has_one(state):
    assert (state, H.BROKEN) in TRANSITIONS


@pytest.mark.parametrize("state", LINKED_STATES - {S.LINKED})
def test_a_trusted_peer_may_fall_silent_be_heard_and_part_in_every_state(state):
    for happening in (H.SILENT, H.HEARD, H.PARTED):
        assert (state, happening) in TRANSITIONS


def walk(member: Membership, *happenings: H) -> None:
    for happening in happenings:
        member.step(happening, now=1.0)
        member.check()


def test_each_assignment_is_a_new_generation():
    member = Membership()
    walk(member, H.ANNOUNCED, H.LINKED, H.ACCEPTED)

    assert member.assign(A, now=2.0) == 1
    assert member.group == "A"
    walk(member, H.LEAVING, H.RETIRED)
    assert member.group is None
    assert member.assign(A, now=3.0) == 2


def test_a_generation_never_falls_behind_what_the_worker_saw():
    member = Membership(state=S.TRUSTED)

    member.know_generation(41)
    member.know_generation(7)

    assert member.assign(A, now=0.0) == 42


def test_a_suspect_keeps_its_group_and_a_lost_one_has_none():
    member = Membership(state=S.TRUSTED)
    member.assign(A, now=0.0)
    walk(member, H.SILENT)
    assert member.group == "A"

    walk(member, H.BROKEN)

    assert member.state is S.LOST
    assert member.group is None


def test_who_stays_and_served_nobody_is_free_again():
    member = Membership(state=S.TRUSTED)
    walk(member, H.LEAVING, H.STAYS)

    assert (member.state, member.group) == (S.TRUSTED, None)


def test_only_a_free_worker_is_assigned():
    member = Membership(state=S.TRUSTED)
    member.assign(A, now=0.0)

    with pytest.raises(BugError, match="leased cannot be assigned"):
        member.assign(A, now=0.0)
    assert member.generation == 1


@given(st.lists(st.sampled_from(H), max_size=30))
def test_whatever_happens_it_holds_together(happenings):
    member = Membership()
    for happening in happenings:
        generation = member.generation
        try:
            if happening is H.ASSIGNED:
                member.assign(A, now=0.0)
            else:
                member.step(happening, now=0.0)
        except BugError:
            pass
        member.check()
        assert member.generation >= generation
        assert member.group is None or member.state in SERVING_STATES
        assert member.group == A or member.state not in (S.LEASED, S.SUSPECT)
