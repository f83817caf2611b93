"""Which member runs which item of a map of commands."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aemesh import limits
from aemesh.policy.spreading import After, Spreading


def all_next(spreading: Spreading, now: float = 0.0) -> list[tuple[int, str]]:
    found = []
    while (one := spreading.next(now)) is not None:
        found.append(one)
    return found


def test_members_run_as_many_as_they_have_slots_and_fill_evenly() -> None:
    spreading = Spreading(range(10), retries=0)
    spreading.see({"a": 4, "b": 2})

    begun = all_next(spreading)

    assert [item for item, _ in begun] == [0, 1, 2, 3, 4, 5]
    assert [key for _, key in begun].count("a") == 4
    assert {key for _, key in begun[:3]} == {"a", "b"}


def test_an_item_that_failed_goes_to_another_member() -> None:
    spreading = Spreading([0], retries=2)
    spreading.see({"a": 1, "b": 1, "c": 1})
    seen = []
    for after in (After.AGAIN, After.AGAIN, After.FAILED):
        item, key = spreading.next(0.0) or (0, "")
        seen.append(key)
        assert spreading.ended(item, ok=False, took=1.0, now=0.0) is after

    assert sorted(seen) == ["a", "b", "c"]
    assert spreading.is_over


def test_the_only_member_gets_a_retry_too() -> None:
    spreading = Spreading([0], retries=1)
    spreading.see({"a": 1})
    spreading.next(0.0)
    spreading.ended(0, ok=False, took=1.0, now=0.0)

    assert spreading.next(0.0) == (0, "a")


def test_what_waits_behind_an_item_that_must_wait_goes_on() -> None:
    spreading = Spreading(range(3), retries=1)
    spreading.see({"a": 1, "b": 1})
    assert all_next(spreading) == [(0, "a"), (1, "b")]

    spreading.ended(0, ok=False, took=1.0, now=0.0)

    assert spreading.next(0.0) == (2, "a")


def test_a_black_hole_is_set_aside_while_others_do_well() -> None:
    spreading = Spreading(range(40), retries=9)
    spreading.see({"good": 1, "hole": 1})
    runs: list[str] = []
    now = 0.0
    while not spreading.is_over:
        now += 1.0
        for item, key in all_next(spreading, now):
            runs.append(key)
            spreading.ended(item, ok=key == "good", took=0.01, now=now)
        assert now < 1000

    assert runs.count("hole") <= 6
    assert runs.count("good") == 40


def test_where_all_fail_nobody_is_set_aside() -> None:
    spreading = Spreading(range(20), retries=0)
    spreading.see({"a": 1, "b": 1})
    for _ in range(10):
        for item, _ in all_next(spreading):
            spreading.ended(item, ok=False, took=0.01, now=0.0)

    assert spreading.aside(0.0) == {}
    assert spreading.is_over


def test_a_lost_member_is_no_fault_of_the_item_until_it_goes_on() -> None:
    spreading = Spreading([0], retries=0)
    spreading.see({"a": 1})
    told = []
    for number in range(4):
        now = 1000.0 * number
        assert spreading.next(now) == (0, "a")
        told.append(spreading.lost(0, now=now))

    assert told == [After.AGAIN] * 3 + [After.FAILED]


def test_what_ends_with_the_master_costs_nobody_anything() -> None:
    spreading = Spreading([0], retries=0)
    spreading.see({"a": 1})
    for _ in range(20):
        assert spreading.next(0.0) == (0, "a")
        spreading.put_back(0)

    assert spreading.tries(0) == 0
    assert spreading.aside(0.0) == {}


def test_a_member_that_has_left_gets_nothing_until_it_is_seen_again() -> None:
    spreading = Spreading([0, 1], retries=0)
    spreading.see({"gone": 2})
    for _ in range(20):
        (item, _), *_ = all_next(spreading)
        spreading.left(item)
        assert all_next(spreading) == []
        spreading.see({"gone": 2})

    assert spreading.tries(0) == 0
    assert spreading.aside(0.0) == {}


def test_a_member_starts_a_few_at_a_time_however_many_it_may_run() -> None:
    spreading = Spreading(range(100), retries=0)
    spreading.see({"large": 64, "small": 2})

    first = all_next(spreading)
    for item, _ in first[:5]:
        spreading.begun(item)
        spreading.begun(item)
    more = all_next(spreading)

    assert len(first) == limits.STARTS_AT_ONCE + 2
    assert len(more) == sum(key == "large" for _, key in first[:5])
    spreading.check()


def test_what_finds_no_place_costs_nobody_anything_and_has_ever_longer_rests() -> None:
    spreading = Spreading(range(2), retries=0)
    spreading.see({"a": 2})
    now, asked, told = 0.0, [], []
    while now < 20.0:
        for item, _ in all_next(spreading, now):
            asked.append(now)
            spreading.not_begun(item, "it is busy", now=now)
        told += [(now, why) for why in spreading.aside(now).values()]
        now += 0.25

    assert spreading.tries(0) == spreading.tries(1) == 0
    # Both at one time, which counts as once.
    assert (
        asked[::2] == asked[1::2] == [0.0, 0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75]
    )
    assert told[0] == (3.75, "it is busy")
    item, _ = all_next(spreading, 100.0)[0]
    spreading.begun(item)
    assert spreading.aside(100.0) == {}


def test_a_link_that_broke_under_many_items_broke_once() -> None:
    spreading = Spreading(range(8), retries=0)
    spreading.see({"a": 8})
    for now in (1.0, 3.0, 5.0):
        for item, _ in all_next(spreading, now):
            spreading.lost(item, now=now + 1.0)

    assert spreading.aside(6.0) == {}
    for item, _ in all_next(spreading, 7.0):
        spreading.lost(item, now=8.0)
    assert spreading.aside(8.0) == {"a": "it was lost 4 times in 120 s"}


_HOWS = ["ok", "failed", "lost", "broke", "away", "left", "not begun"]


class Spreads(RuleBasedStateMachine):
    """No item is lost, none runs twice at one time, no member runs more than it may."""

    def __init__(self) -> None:
        super().__init__()
        self.spreading = Spreading(range(10), retries=1)
        self.over: set[int] = set()
        self.running: dict[int, str] = {}
        self.slots: dict[str, int] = {}
        self.now = 0.0

    @rule(slots=st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)))
    def see(self, slots: dict[str, int]) -> None:
        self.slots = {key: max(count, 1) for key, count in slots.items()}
        self.spreading.see(slots)

    @rule(after=st.floats(0, 100))
    def begin(self, after: float) -> None:
        self.now += after
        found = self.spreading.next(self.now)
        if found is not None:
            item, key = found
            assert item not in self.running
            assert list(self.running.values()).count(key) < self.slots[key]
            self.running[item] = key

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begun(self, data: Any) -> None:
        self.spreading.begun(data.draw(st.sampled_from(sorted(self.running))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        item = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[item]
        how = data.draw(st.sampled_from(_HOWS))
        if how == "away":
            self.spreading.put_back(item)
            return
        if how == "left":
            self.spreading.left(item)
            return
        if how == "not begun":
            self.spreading.not_begun(item, "busy", now=self.now)
            return
        if how == "broke":
            if self.spreading.broke(item) is not After.AGAIN:
                self.over.add(item)
            return
        if how == "lost":
            after = self.spreading.lost(item, now=self.now)
        else:
            took = data.draw(st.floats(0, 20))
            after = self.spreading.ended(item, ok=how == "ok", took=took, now=self.now)
        if after is not After.AGAIN:
            self.over.add(item)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.spreading.check()
        waiting = set(self.spreading._waiting)
        assert waiting | self.running.keys() | self.over == set(range(10))


TestSpreads = Spreads.TestCase
TestSpreads.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
