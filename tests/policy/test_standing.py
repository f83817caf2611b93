"""Which workers are set aside, and for how long."""

from __future__ import annotations

import pytest

from aemesh import limits
from aemesh.policy.standing import Standing


def fail(
    standing: Standing, now: float, *, took: float = 0.1, well: bool = True
) -> bool:
    return standing.failed("no Dask here", now=now, took=took, others_well=well)


def test_a_black_hole_is_set_aside_with_the_reason() -> None:
    standing = Standing()

    assert [fail(standing, now) for now in (1.0, 2.0, 3.0)] == [False, False, True]
    assert standing.why == "3 quick failures, the last: no Dask here"
    assert standing.is_aside(3.0 + limits.ASIDE_AFTER - 1)
    assert not standing.is_aside(3.0 + limits.ASIDE_AFTER)


@pytest.mark.parametrize(
    ("took", "well"), [(limits.FAILS_QUICKLY_AFTER + 1, True), (0.1, False)]
)
def test_a_slow_failure_or_one_that_all_have_says_nothing_of_it(took, well) -> None:
    standing = Standing()

    assert not any(fail(standing, now, took=took, well=well) for now in range(50))
    assert not standing.is_aside(50.0)


def test_a_success_between_failures_begins_the_count_anew() -> None:
    standing = Standing()
    for now in range(50):
        assert not fail(standing, float(now))
        assert not fail(standing, float(now))
        standing.did_well()


def test_each_time_is_longer_until_it_is_forgotten() -> None:
    standing, now, spans = Standing(), 0.0, []
    for _ in range(8):
        while not fail(standing, now):
            pass
        spans.append(standing.until - now)
        now = standing.until

    first = limits.ASIDE_AFTER
    assert spans[:4] == [first, 2 * first, 4 * first, 8 * first]
    assert spans[-1] == limits.ASIDE_CAP_AFTER
    now += limits.ASIDE_FORGOTTEN_AFTER + 1
    while not fail(standing, now):
        pass
    assert standing.until - now == first


def test_a_link_that_flaps_is_set_aside() -> None:
    standing = Standing()
    told = [standing.lost(now=10.0 * n) for n in range(limits.LOSSES_ENOUGH)]

    assert told == [False] * (limits.LOSSES_ENOUGH - 1) + [True]
    assert "was lost 4 times" in standing.why


def test_a_link_that_breaks_now_and_then_is_not() -> None:
    standing = Standing()
    span = limits.LOSSES_WITHIN / (limits.LOSSES_ENOUGH - 1) + 1

    assert not any(standing.lost(now=span * n) for n in range(50))


def test_a_person_takes_it_back_at_once() -> None:
    standing = Standing()
    while not fail(standing, 0.0):
        pass
    standing.readmit()

    assert not standing.is_aside(0.0)
    assert [fail(standing, 1.0) for _ in range(3)] == [False, False, True]
    assert standing.until == 1.0 + limits.ASIDE_AFTER
