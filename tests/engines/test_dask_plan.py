"""The arithmetic of a departure, as tables."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.engines.dask.dask_plan import (
    PIECE_AFTER,
    SETTLE_AFTER,
    Piece,
    Task,
    make_plan,
    may_begin,
)

MB = 1_000_000
# Beyond the bytes: what each piece costs in talk, and the end of it all.
TALK = SETTLE_AFTER + PIECE_AFTER


def piece(key: str, megabytes: float, cost: float = 1.0) -> Piece:
    return Piece(key, int(megabytes * MB), cost)


@pytest.mark.parametrize(
    ("megabytes", "rate", "needs"),
    [
        ([], 1, 0.0),
        ([1], 1, 1.25 + TALK),
        ([1], 10, 0.125 + TALK),
        ([10, 20], 5, 7.5 + TALK + PIECE_AFTER),
        ([0], 1, TALK),
    ],
)
def test_moving_takes_what_the_measured_line_takes_and_a_quarter(
    megabytes, rate, needs
):
    pieces = [piece(str(n), size) for n, size in enumerate(megabytes)]

    plan = make_plan([], pieces, left=60.0, rate=rate * MB)

    assert plan.needs_after == pytest.approx(needs)
    assert plan.work_after == pytest.approx(60.0 - needs)


@pytest.mark.parametrize(
    ("pieces", "left", "order", "fits"),
    [
        # a byte that took longest to compute first
        ([piece("cheap", 1, 1), piece("dear", 1, 9)], 60, "dear cheap", 2),
        ([piece("large", 8, 9), piece("small", 1, 2)], 60, "small large", 2),
        # what nobody can compute again before all else
        ([piece("task", 1, 9), piece("given", 50, math.inf)], 90, "given task", 2),
        # equal worth: the smaller one, so that more get away
        ([piece("two", 2, 2), piece("one", 1, 1)], 60, "one two", 2),
        # 1 MB/s: 1.25 s for each of them
        ([piece("a", 1, 3), piece("b", 1, 2), piece("c", 1, 1)], 3.1, "a b c", 2),
        ([piece("a", 1, 3)], 0.0, "a", 0),
        ([], 0.0, "", 0),
    ],
)
def test_what_is_worth_most_moves_first(pieces, left, order, fits):
    plan = make_plan([], pieces, left=left, rate=MB)

    assert plan.order == tuple(order.split())
    assert plan.fits == fits


@pytest.mark.parametrize(
    ("takes", "queue", "work", "may"),
    [
        (1.0, 0.0, 2.0, True),
        (1.0, 1.0, 2.0, True),
        (1.0, 1.1, 2.0, False),
        (1.0, 0.0, 0.0, False),
        (0.0, 0.0, 0.0, True),
        (None, 0.0, 29.0, False),  # nobody knows: taken for long
        (None, 0.0, 31.0, True),
    ],
)
def test_a_task_begins_only_if_it_ends_before_it_is_time_to_move(
    takes, queue, work, may
):
    assert may_begin(takes, queue_after=queue, work_after=work) is may


def runs(key: str, takes: float | None, ran: float, process: str = "p") -> Task:
    return Task(key, process, takes, ran)


def waits(key: str, takes: float | None, process: str = "p") -> Task:
    return Task(key, process, takes)


@pytest.mark.parametrize(
    ("tasks", "left", "gives", "hopeless"),
    [
        ([waits("a", 1), waits("b", 1), waits("c", 1)], 2.5, "c", ""),
        ([runs("a", 5, 4), waits("b", 1), waits("c", 1)], 2.5, "c", ""),
        # each process has its own turns
        ([waits("a", 2), waits("b", 2, "q"), waits("c", 2, "q")], 2.5, "c", ""),
        # a long one is for others, the short one behind it is not
        ([waits("long", 9), waits("short", 1)], 2.5, "long", ""),
        # nobody knows when the running one ends: nothing can wait for it
        ([runs("a", None, 1), waits("b", 1)], 2.5, "b", ""),
        # one over its time may end at any moment; what waits for it cannot know
        ([runs("a", 5, 7), waits("b", 1)], 2.5, "b", ""),
        ([runs("a", 9, 1), waits("b", 1)], 2.5, "b", "a"),
        ([runs("a", 3, 1)], 2.4, "", "a"),  # it ends, but is not moved
        ([runs("a", 3, 1)], 2.6, "", ""),
        ([waits("a", None)], 10, "a", ""),
        ([waits("a", None)], 40, "", ""),
        ([], 10, "", ""),
    ],
)
def test_what_cannot_end_here_is_given_to_others(tasks, left, gives, hopeless):
    plan = make_plan(tasks, [], left=left, rate=MB)

    assert plan.gives == tuple(gives.split())
    assert plan.hopeless == frozenset(hopeless.split())


def test_the_time_that_moving_takes_is_no_time_for_work():
    tasks = [waits("a", 1.0)]

    with_data = make_plan(tasks, [piece("data", 4)], left=6.0, rate=MB)
    without = make_plan(tasks, [], left=6.0, rate=MB)

    assert with_data.work_after == pytest.approx(6.0 - 5.0 - TALK)
    assert (with_data.gives, without.gives) == (("a",), ())


PIECES = st.lists(
    st.builds(
        Piece,
        st.integers(),
        st.integers(0, 10**10),
        st.floats(0, 1e6) | st.just(math.inf),
    ),
    max_size=20,
    unique_by=lambda one: one.key,
)


@given(PIECES, st.floats(0, 1e5), st.floats(1, 1e10))
def test_every_piece_has_its_place_and_more_time_never_fits_less(pieces, left, rate):
    plan = make_plan([], pieces, left=left, rate=rate)
    later = make_plan([], pieces, left=left + 10.0, rate=rate)

    assert sorted(plan.order) == sorted(one.key for one in pieces)
    assert plan.work_after >= 0.0
    assert plan.fits <= later.fits
    assert (plan.needs_after <= left) == (plan.fits == len(pieces))


@given(st.lists(st.floats(0.1, 50), max_size=10), st.floats(0, 200))
def test_what_stays_ends_in_time_one_after_the_other(spans, left):
    tasks = [waits(str(n), span) for n, span in enumerate(spans)]

    gives = make_plan(tasks, [], left=left, rate=MB).gives
    stays = [task for task in tasks if task.key not in gives]

    assert sum(task.takes_after or 0.0 for task in stays) <= left + 1e-9
    assert make_plan(stays, [], left=left, rate=MB).gives == ()
    assert all(
        replace(task).takes_after + sum(t.takes_after or 0.0 for t in stays) > left
        for task in tasks
        if task.key in gives and task is tasks[-1]
    )
