"""When workers that serve are moved for the sake of sharing."""

from __future__ import annotations

from aemesh import limits
from aemesh.policy.settling import Settling

SOON, CAP = limits.SETTLE_AFTER, limits.SETTLE_CAP_AFTER


def test_nothing_is_due_when_nothing_changed() -> None:
    assert Settling().due_at() == float("inf")


def test_it_is_due_when_all_has_been_quiet_for_a_while() -> None:
    settling = Settling()
    settling.changed(10.0)
    assert settling.due_at() == 10.0 + SOON
    settling.changed(11.0)
    assert settling.due_at() == 11.0 + SOON

    settling.looked(13.0, moved=False)

    assert settling.due_at() == float("inf")


def test_what_a_person_asks_for_is_due_at_once() -> None:
    settling = Settling()
    settling.changed(9.0)
    settling.asked(10.0)
    assert settling.due_at() <= 10.0

    settling.looked(10.0, moved=True)
    settling.changed(20.0)

    assert settling.due_at() == 20.0 + SOON  # and makes nothing else wait longer


def test_what_never_rests_puts_it_off_no_longer_than_the_cap() -> None:
    settling = Settling()
    for tenth in range(10_000):
        settling.changed(tenth / 10)

    assert settling.due_at() == CAP


def test_a_flapping_link_makes_no_storm_of_moves() -> None:
    """It comes and goes every three seconds, and each time others would move."""
    settling, now, moved = Settling(), 0.0, []
    while now < 600.0:
        settling.changed(now)
        if settling.due_at() <= now + 3.0:
            settling.looked(settling.due_at(), moved=True)
            moved.append(now)
        now += 3.0

    assert 1 <= len(moved) <= 600.0 / CAP + 5


def test_after_a_calm_time_it_is_quick_again() -> None:
    settling, now = Settling(), 0.0
    for _ in range(10):
        settling.changed(now)
        now = settling.due_at()
        settling.looked(now, moved=True)
    settling.changed(now)
    assert settling.due_at() == now + CAP
    now += 3 * CAP
    settling.looked(now, moved=True)
    settling.changed(now)

    assert settling.due_at() == now + SOON
