"""Who may come in before anybody knows who it is; times are numbers here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.policy.strangers import Entrance, StrangerGate, drop_chance

LAST = 0.999_999
SOURCE = "192.0.2.1"


def blame_often(gate: StrangerGate, source: str, *, now: float) -> None:
    for _ in range(100):
        gate.blame(source, now=now)
        gate.check()


@pytest.mark.parametrize(
    ("inside", "chance"),
    [(0, 0.0), (9, 0.0), (10, 0.30), (55, 0.65), (100, 1.0), (5000, 1.0)],
)
def test_the_early_drop_is_that_of_sshd(inside, chance):
    assert drop_chance(inside) == pytest.approx(chance)


def test_the_room_fills_up_and_then_nobody_comes_in():
    gate = StrangerGate()
    for n in range(limits.STRANGERS_FULL):
        assert gate.enter(f"10.0.0.{n}", now=0.0, chance=LAST) is Entrance.ADMIT
        gate.check()

    assert gate.enter("10.0.1.1", now=0.0, chance=LAST) is Entrance.ROOM_FULL
    gate.leave("10.0.0.7")
    assert gate.enter("10.0.1.1", now=0.0, chance=LAST) is Entrance.ADMIT


def test_one_source_cannot_fill_the_room():
    gate = StrangerGate()
    for _ in range(limits.STRANGERS_PER_SOURCE):
        assert gate.enter(SOURCE, now=0.0, chance=LAST) is Entrance.ADMIT

    assert gate.enter(SOURCE, now=0.0, chance=LAST) is Entrance.SOURCE_FULL
    assert gate.enter("192.0.2.2", now=0.0, chance=LAST) is Entrance.ADMIT


def test_one_failure_of_an_honest_peer_costs_it_nothing():
    gate = StrangerGate()
    gate.blame(SOURCE, now=0.0)

    assert gate.enter(SOURCE, now=0.0, chance=LAST) is Entrance.ADMIT


def test_many_failures_shut_a_source_out_until_they_are_paid():
    gate = StrangerGate()
    blame_often(gate, SOURCE, now=100.0)

    assert gate.enter(SOURCE, now=100.0, chance=LAST) is Entrance.PENALTY
    assert gate.enter("192.0.2.2", now=100.0, chance=LAST) is Entrance.ADMIT
    half = limits.PENALTY_CAP_AFTER / 2
    assert gate.enter(SOURCE, now=100.0 + half - 1, chance=LAST) is Entrance.PENALTY
    assert gate.enter(SOURCE, now=100.0 + half + 1, chance=LAST) is Entrance.ADMIT


def test_a_source_with_a_trusted_link_keeps_one_place():
    """Threat: 88."""
    gate = StrangerGate()
    gate.trust(SOURCE)
    blame_often(gate, SOURCE, now=0.0)
    for n in range(limits.STRANGERS_FULL):
        gate.enter(f"10.0.0.{n}", now=0.0, chance=LAST)

    assert gate.enter(SOURCE, now=0.0, chance=0.0) is Entrance.ADMIT
    assert gate.enter(SOURCE, now=0.0, chance=0.0) is Entrance.PENALTY
    gate.leave(SOURCE)
    gate.untrust(SOURCE)
    assert gate.enter(SOURCE, now=0.0, chance=0.0) is Entrance.PENALTY


def test_the_streams_of_a_trusted_link_and_a_crowd_take_no_place_of_each_other():
    """Threat: 88: who else is at that address is bounded all the same."""
    gate = StrangerGate()
    gate.trust(SOURCE)
    for n in range(limits.STRANGERS_FULL):
        gate.enter(f"10.0.0.{n}", now=0.0, chance=LAST)
    for _ in range(limits.LINKED_PER_SOURCE):
        assert gate.enter(SOURCE, now=0.0, chance=0.0) is Entrance.ADMIT

    assert gate.enter(SOURCE, now=0.0, chance=LAST) is Entrance.SOURCE_FULL
    assert gate.strangers == limits.STRANGERS_FULL
    gate.leave("10.0.0.7")
    assert gate.enter("10.0.1.1", now=0.0, chance=LAST) is Entrance.ADMIT
    gate.untrust(SOURCE)
    assert gate.enter("10.0.1.2", now=0.0, chance=LAST) is Entrance.ROOM_FULL


def test_a_source_that_became_trusted_has_paid():
    gate = StrangerGate()
    blame_often(gate, SOURCE, now=0.0)

    gate.trust(SOURCE)
    gate.untrust(SOURCE)

    assert gate.enter(SOURCE, now=0.0, chance=LAST) is Entrance.ADMIT


def test_the_table_of_penalties_is_bounded_and_the_oldest_goes_first():
    gate = StrangerGate()
    for n in range(limits.PENALTY_SOURCES + 50):
        for _ in range(40):
            gate.blame(str(n), now=0.0)
        gate.check()

    assert gate.enter("0", now=0.0, chance=LAST) is Entrance.ADMIT
    newest = str(limits.PENALTY_SOURCES + 49)
    assert gate.enter(newest, now=0.0, chance=LAST) is Entrance.PENALTY


def test_nothing_is_kept_of_sources_that_left():
    gate = StrangerGate()
    for n in range(5000):
        gate.enter(str(n), now=0.0, chance=LAST)
        gate.leave(str(n))
        gate.trust(str(n))
        gate.untrust(str(n))
    gate.check()

    assert repr(gate) == "<StrangerGate 0 inside, 0 shut>"
    assert not gate._inside
    assert not gate._trusted


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave", "blame", "trust", "untrust"]),
            st.sampled_from(["a", "b", "c"]),
            st.floats(0.0, 5.0),
            st.floats(0.0, 0.999),
        ),
        max_size=60,
    )
)
def test_whatever_happens_it_holds_together(steps):
    gate = StrangerGate()
    now = 0.0
    inside, trusted, ever = [], [], set()
    for what, source, later, chance in steps:
        now += later
        if what == "enter":
            if gate.enter(source, now=now, chance=chance) is Entrance.ADMIT:
                inside.append(source)
        elif what == "leave" and source in inside:
            inside.remove(source)
            gate.leave(source)
        elif what == "blame":
            gate.blame(source, now=now)
        elif what == "trust":
            trusted.append(source)
            ever.add(source)
            gate.trust(source)
        elif what == "untrust" and source in trusted:
            trusted.remove(source)
            gate.untrust(source)
        gate.check()
        for one in set(inside):
            known = one in ever
            most = limits.LINKED_PER_SOURCE if known else limits.STRANGERS_PER_SOURCE
            assert inside.count(one) <= most
