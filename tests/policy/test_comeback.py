"""When a worker is tried again in a group in which it failed."""

from __future__ import annotations

from aemesh import limits
from aemesh.model.names import GroupName
from aemesh.policy.comeback import Comeback

A, B = GroupName("A"), GroupName("B")
LONG = limits.FAILS_QUICKLY_AFTER + 1.0


def test_the_pause_doubles_up_to_a_minute_however_often_it_fails() -> None:
    back = Comeback()
    assert [back.failed(A) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [back.failed(A) for _ in range(5000)] == [60.0] * 5000
    assert back.failed(B) == 1.0


def test_who_breaks_at_once_comes_back_at_once_the_first_time_only() -> None:
    back = Comeback()
    assert [back.broke(A, lasted=0.1) for _ in range(4)] == [0, 1, 2, 4]


def test_what_went_before_is_forgotten_once_it_has_lasted() -> None:
    back = Comeback()
    back.failed(A)
    assert back.broke(A, lasted=LONG) == 0.0
    assert back.broke(A, lasted=0.1) == 0.0
    back.failed(A)
    back.parted(A, lasted=0.1)
    assert back.failed(A) == 2.0
    back.parted(A, lasted=LONG)
    assert back.failed(A) == 1.0
