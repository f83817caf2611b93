"""Who wants more workers, who gives back, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.model.group import Demand
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.policy.masters import Lent, Need, give_back, has_enough, wanted
from aemesh.policy.turns import Turns

A, B = GroupName("A"), GroupName("B")
IDLE = limits.IDLE_GIVEN_AFTER


def key(number: int) -> KeyId:
    return KeyId(bytes([number]) * 32)


MARY, PAUL = key(201), key(202)


@pytest.mark.parametrize(
    ("needs", "enough", "count"),
    [
        ([], False, 0),
        ([Need(0, Demand())], False, 1),
        # An idle group has what it needs; one that works takes one more, and one more.
        ([Need(1, Demand())], False, 0),
        ([Need(1, Demand(), busy=True)], False, 1),
        ([Need(1, Demand(min=3))], False, 2),
        ([Need(1, Demand(min=0))], False, 0),
        ([Need(0, Demand(min=0))], False, 1),
        # Nothing beyond the max, whatever there is to do.
        ([Need(2, Demand(max=2), busy=True)], True, 0),
        ([Need(3, Demand(max=2), busy=True)], True, 0),
        ([Need(0, Demand(min=0, max=0))], True, 0),
        ([Need(2, Demand(max=2)), Need(0, Demand())], False, 1),
        ([Need(2, Demand(max=2)), Need(1, Demand(max=1))], True, 0),
    ],
)
def test_who_has_enough_and_who_wants_more(needs, enough, count):
    assert has_enough(needs) is enough
    assert wanted(needs) == count


def lent(number: int, idle: float = IDLE, *, group=A, wants=None, over=False) -> Lent:
    wants = {MARY: 1} if wants is None else wants
    return Lent(key=key(number), group=group, idle_after=idle, wanted=wants, over=over)


@pytest.mark.parametrize(
    ("members", "minima", "on_the_way", "given"),
    [
        ([lent(1), lent(2)], {A: 1}, {}, {key(1): MARY}),
        # The one that is idle longest; none that works, none below the min.
        ([lent(1), lent(2, IDLE + 9)], {A: 0}, {}, {key(2): MARY}),
        ([lent(1, 0.0), lent(2, IDLE / 2)], {A: 0}, {}, {}),
        ([lent(1)], {A: 1}, {}, {}),
        # As many as are wanted, with those that are on their way.
        ([lent(n, wants={MARY: 2}) for n in (1, 2, 3)], {}, {MARY: 1}, {key(1): MARY}),
        ([lent(1), lent(2)], {}, {MARY: 1}, {}),
        ([lent(n, wants={}) for n in (1, 2)], {}, {}, {}),
        # Two masters: each gets one before one gets two.
        (
            [lent(n, wants={MARY: 2, PAUL: 2}) for n in (1, 2)],
            {},
            {},
            {key(1): MARY, key(2): PAUL},
        ),
        # A lease that is over ends at work, and below the min.
        ([lent(1, 0.0, over=True), lent(2)], {A: 2}, {}, {key(1): MARY}),
        ([lent(1, 0.0, over=True, wants={})], {A: 0}, {}, {}),
    ],
)
def test_what_a_holder_gives_back(members, minima, on_the_way, given):
    assert give_back(members, minima, on_the_way=on_the_way) == given


LENT = st.builds(
    Lent,
    key=st.integers(0, 200).map(key),
    group=st.sampled_from([A, B]),
    idle_after=st.sampled_from([0.0, IDLE / 2, IDLE, 2 * IDLE]),
    wanted=st.dictionaries(st.sampled_from([MARY, PAUL]), st.integers(1, 5)),
    over=st.booleans(),
)


@given(
    st.lists(LENT, unique_by=lambda one: one.key),
    st.fixed_dictionaries({A: st.integers(0, 4), B: st.integers(0, 4)}),
)
def test_nothing_at_work_is_given_and_nothing_that_nobody_wants(members, minima):
    given = give_back(members, minima, on_the_way={})

    by_key = {one.key: one for one in members}
    for worker, master in given.items():
        one = by_key[worker]
        assert master in one.wanted
        assert one.over or one.idle_after >= IDLE
    for master in (MARY, PAUL):
        most = max((one.wanted.get(master, 0) for one in members), default=0)
        assert list(given.values()).count(master) <= most
    for group, least in minima.items():
        left = [one for one in members if one.group == group and one.key not in given]
        idle_given = [
            one
            for one in members
            if one.group == group and one.key in given and not one.over
        ]
        assert not idle_given or len(left) >= least
    assert give_back(list(reversed(members)), minima, on_the_way={}) == given


def test_two_idle_masters_do_not_hand_a_worker_to_and_fro():
    """Played to its end from every split: each change of hands meets a need."""
    for ours in range(5):
        sizes = [ours, 4 - ours]
        for _ in range(10):
            for me, other in ((0, 1), (1, 0)):
                count = wanted([Need(sizes[other], Demand())])
                members = [
                    lent(n, wants={MARY: count} if count else {})
                    for n in range(sizes[me])
                ]
                moved = len(give_back(members, {A: 1}, on_the_way={}))
                sizes[me] -= moved
                sizes[other] += moved
                if moved:
                    assert sizes[other] == 1
        assert min(sizes) >= 1
        assert sum(sizes) == 4


def test_who_had_a_worker_waits_while_others_have_their_turn():
    turns = Turns()
    assert turns.want(MARY, 1)
    assert not turns.want(MARY, 1)
    turns.ended(PAUL, 10.0)

    assert turns.waits(PAUL, 10.0)
    assert not turns.waits(MARY, 10.0)
    assert turns.next_at(10.0) == 10.0 + limits.TURN_AFTER
    assert not turns.waits(PAUL, 10.0 + limits.TURN_AFTER)
    turns.taken()
    assert not turns.waits(PAUL, 10.0)
    turns.check()


def test_nobody_waits_for_those_who_want_nothing_any_more():
    turns = Turns()
    turns.want(MARY, 1)
    turns.ended(PAUL, 0.0)
    turns.want(MARY, 0)

    assert not turns.waits(PAUL, 0.0)
    turns.ended(PAUL, 0.0)
    turns.want(PAUL, 3)  # the wish of who had it counts for nothing
    assert not turns.waits(PAUL, 0.0)
    turns.check()
