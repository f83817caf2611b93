"""How many items of a map go to a worker at one time."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.policy.batching import BATCH_AFTER, Batching, in_flight

OVERHEAD = 0.005  # handing a batch out, as it is with Dask here


def play(durations: list[float], slots: int) -> tuple[float, list[int]]:
    """Map items of these durations; return when all are done, and the batches."""
    batching, sizes = Batching(), []
    free = [0.0] * slots
    waiting = list(reversed(durations))
    while waiting:
        size = batching.size(left=len(waiting), slots=slots)
        took = sum(waiting.pop() for _ in range(size))
        at = heapq.heappop(free) + OVERHEAD + took
        heapq.heappush(free, at)
        batching.took(size, took)
        sizes.append(size)
    return max(free), sizes


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=300),
    st.integers(0, 64),
)
def test_every_item_is_in_one_batch_of_a_lawful_size(
    durations: list[float], slots: int
) -> None:
    batching, left = Batching(), len(durations)
    while left:
        size = batching.size(left=left, slots=slots)
        assert 1 <= size <= min(left, limits.RUN_BATCH_ITEMS)
        batching.took(size, sum(durations[:size]))
        left -= size


@pytest.mark.parametrize("count", [1, 7, 100, 20_000])
def test_empty_items_go_in_few_batches(count: int) -> None:
    _, sizes = play([1e-6] * count, slots=2)

    assert len(sizes) <= 2 + count / 200 + 24


@given(st.integers(1, 50), st.integers(1, 8), st.floats(BATCH_AFTER, 100))
def test_long_items_go_one_by_one(count: int, slots: int, after: float) -> None:
    _, sizes = play([after] * count, slots)

    assert sizes == [1] * count


@given(st.integers(50, 2000), st.integers(1, 16), st.floats(0.001, 1))
def test_nobody_waits_long_for_the_last_batch(
    count: int, slots: int, after: float
) -> None:
    end, sizes = play([after] * count, slots)
    perfect = (count * after + len(sizes) * OVERHEAD) / slots

    assert end <= perfect + 2 * max(BATCH_AFTER, after) + 2 * OVERHEAD


def test_one_quick_item_among_long_ones_misleads_once() -> None:
    _, sizes = play([1e-6, *[1.0] * 200], slots=2)

    assert max(sizes) <= 8
    assert sizes[3:] == [1] * len(sizes[3:])


def test_what_changes_is_followed() -> None:
    batching = Batching()
    for _ in range(5):
        batching.took(100, 100 * 0.001)
    for _ in range(8):
        batching.took(10, 10 * 0.02)

    assert 8 <= batching.size(left=10**6, slots=2) <= 12


def test_each_worker_has_one_to_come() -> None:
    assert in_flight(4) == 8
    assert in_flight(0) == 2


@given(st.lists(st.floats(0, 1000), max_size=5))
def test_it_is_looked_often_for_what_is_quick_and_seldom_for_what_is_not(
    durations: list[float],
) -> None:
    batching = Batching()
    for after in durations:
        batching.took(1, after)

    assert 0.002 <= batching.look_after <= max(0.002, (batching.item_after or 0) / 40)
