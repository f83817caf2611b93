"""The items of a map: which wait, which are out, what came of the others."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from aemesh.client.itemtask import Failure
from aemesh.client.mapwork import Kept, Work

FAILED = Failure(b"", "it went wrong", "office-1")


def test_items_are_handed_out_in_their_order_and_retries_first() -> None:
    work = Work(5, retries=1)
    assert work.take(2) == [0, 1]

    work.settle([0, 1], [b"zero", FAILED])

    assert work.take(3) == [1, 2, 3]
    assert work.wait(0) == b"zero"


def test_an_item_that_goes_on_failing_has_its_failure() -> None:
    work = Work(1, retries=2)
    for _ in range(3):
        assert work.take(9) == [0]
        work.settle([0], [FAILED])

    assert work.is_over
    assert work.wait(0) == FAILED


def test_what_was_on_a_process_that_died_is_out_alone_when_the_rest_is_done() -> None:
    work = Work(6, retries=1)
    assert [work.take(2), work.take(1), work.take(1)] == [[0, 1], [2], [3]]

    assert work.broke([0, 1], FAILED)
    assert work.broke([2], FAILED)

    assert work.take(9) == [4, 5]
    work.settle([4, 5], [b"", b""])
    assert work.take(9) == []  # 3 is out
    work.settle([3], [b""])
    assert work.take(9) == [0]
    assert work.left == 0
    assert work.take(9) == []
    assert not work.broke([0], FAILED)
    assert work.take(9) == [0]
    assert not work.broke([0], FAILED)
    assert work.wait(0) == FAILED
    for number in (1, 2):
        assert work.take(9) == [number]
        work.settle([number], [b""])
    assert work.is_over


def test_what_is_kept_already_is_not_handed_out() -> None:
    work = Work(4, done=[0, 2], retries=0)

    assert work.take(9) == [1, 3]
    assert work.kept_from(0, most=9) == [0]
    work.settle([1, 3], [None, None])
    assert work.kept_from(0, most=3) == [0, 1, 2]
    assert work.is_over


def test_a_value_that_was_given_away_is_not_held() -> None:
    work = Work(1, retries=0)
    work.settle(work.take(1), [b"much"])

    work.drop(0)

    assert work.wait(0) is Kept.KEPT


def test_who_waits_gets_the_error_that_ends_all() -> None:
    work = Work(1, retries=0)
    threading.Timer(0.05, work.fail, [ZeroDivisionError()]).start()

    with pytest.raises(ZeroDivisionError):
        work.wait(0)
    assert work.is_over


class Works(RuleBasedStateMachine):
    """Every item gets one result, whatever is lost on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work(12, done=[3], retries=2)
        self.out: list[list[int]] = []

    @rule()
    def look(self) -> None:
        assert self.work.is_over == (len(self.work._results) == 12)

    @precondition(lambda self: self.work.left)
    @rule(size=st.integers(1, 5))
    def take(self, size: int) -> None:
        self.out.append(self.work.take(size))
        assert self.out[-1]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def land(self, data: Any) -> None:
        numbers = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        match data.draw(st.sampled_from(["settle", "broke", "lost"])):
            case "settle":
                one = st.sampled_from([b"value", None, FAILED])
                results = [data.draw(one) for _ in numbers]
                self.work.settle(numbers, results)
            case "broke":
                self.work.broke(numbers, FAILED)
            case _:
                self.work.put_back(numbers)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.work.check()
        out = [number for numbers in self.out for number in numbers]
        waiting = [*self.work._waiting, *self.work._suspects]
        assert set(out) == self.work._out
        done = list(self.work._results)
        assert sorted(out + waiting + done) == list(range(12))


TestWorks = Works.TestCase
TestWorks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
