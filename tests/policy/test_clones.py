"""One key, two lives: who is accused, and who is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.policy.clones import (
    Lives,
    SecondLink,
    Twins,
    second_link,
    twins,
    yields,
)
from tests.policy.test_discovery import announced

SOON = limits.CLONE_AFTER
LATE = limits.SUSPECT_AFTER
PLACE = Address("10.0.0.1", 7472)
ELSEWHERE = "10.0.0.2"


def said(run: str, *hosts: str, at: int = 1_800_000_000):
    return replace(announced(1, at=at, hosts=hosts or ("10.0.0.1",)), run=run)


# The second came at 100.
@pytest.mark.parametrize(
    ("first", "second", "heard_at", "now", "expected"),
    [
        # One process, or a peer that does not say which.
        ("r1", "r1", 110, 110, Twins.ONE),
        ("", "", 110, 110, Twins.ONE),
        # A process says it always or never: who took a key cannot hide by silence.
        ("", "r2", 110, 110, Twins.TWO),
        ("r1", "", 110, 110, Twins.TWO),
        # The first was heard before, or so soon after that it may have died since.
        ("r1", "r2", 99.9, 100, Twins.WAIT),
        ("r1", "r2", 100 + SOON - 0.1, 100 + SOON, Twins.WAIT),
        ("r1", "r2", 99.9, 100 + LATE - 0.1, Twins.WAIT),
        # It is heard a beat later: both live.
        ("r1", "r2", 100 + SOON, 100 + SOON, Twins.TWO),
        ("r1", "r2", 200, 200, Twins.TWO),
        # It fell silent as the second came: killed, and started again.
        ("r1", "r2", 99.9, 100 + LATE, Twins.GONE),
        ("r1", "r2", 100 + SOON - 0.1, 100 + LATE, Twins.GONE),
    ],
)
def test_both_must_show_that_they_live(
    first: str, second: str, heard_at: float, now: float, expected: Twins
) -> None:
    seen = twins(first, second, came_at=100, heard_at=heard_at, now=now)

    assert seen is expected


@pytest.mark.parametrize(
    ("second", "heard_at", "now", "expected"),
    [
        ("r1", 100.0, 100.0, SecondLink.TAKES),
        ("", 100.0, 100.0, SecondLink.WAITS),
        ("", 100 + SOON, 100 + SOON, SecondLink.REFUSED),
        ("r2", 100.0, 100.0, SecondLink.WAITS),
        ("r2", 100 + SOON, 100 + SOON, SecondLink.REFUSED),
        ("r2", 99.0, 100 + LATE, SecondLink.TAKES),
    ],
)
def test_what_becomes_of_a_second_link_of_a_master(
    second: str, heard_at: float, now: float, expected: SecondLink
) -> None:
    place = second_link("r1", second, came_at=100, heard_at=heard_at, now=now)

    assert place is expected


def test_a_started_again_master_waits_for_less_than_a_lost_link_takes() -> None:
    assert limits.CLONE_AFTER >= limits.PING_EVERY
    assert limits.CLONE_AFTER < limits.SUSPECT_AFTER < limits.LOST_AFTER


@pytest.mark.parametrize(
    ("run", "lives", "expected"),
    [
        # It moved to another address, and is one process.
        ("r1", [said("r1"), said("r1", ELSEWHERE)], []),
        # Another process, somewhere else.
        ("r1", [said("r1"), said("r2", ELSEWHERE)], ["r2"]),
        ("r1", [said("r2", ELSEWHERE)], ["r2"]),
        # An older one is worth a look, too: which of two spoke first means nothing.
        ("r1", [said("r1"), said("r2", ELSEWHERE, at=1_700_000_000)], ["r2"]),
        # The process before this one, where this one is now.
        ("r2", [said("r1"), said("r2")], []),
        # And where this one is as well, by its own word.
        ("r2", [said("r1", ELSEWHERE), said("r2", "10.0.0.1", ELSEWHERE)], []),
        # Nobody says which process it is.
        ("", [said("r1"), said("r2", ELSEWHERE)], []),
        ("r1", [said("", ELSEWHERE)], []),
    ],
)
def test_whose_place_is_looked_at(run: str, lives: list, expected: list[str]) -> None:
    seen = Lives()
    for one in lives:
        seen.hear(one, 1.0)

    found = [life.announcement.run for life in seen.suspects(run, PLACE, 2.0)]

    assert found == expected
    seen.check()


def test_an_old_announcement_costs_one_look_and_another_a_minute_later() -> None:
    seen = Lives()
    again_at = 2.0 + limits.CLONE_AGAIN_AFTER

    def looks(now: float) -> int:
        found = seen.suspects("r1", PLACE, now)
        for life in found:
            seen.looked(life, now)
        return len(found)

    seen.hear(said("r2", ELSEWHERE), 1.0)
    assert looks(2.0) == 1
    assert looks(again_at) == 0  # it was not heard again
    seen.hear(said("r2", ELSEWHERE), 10.0)
    assert looks(10.0) == 0
    assert looks(again_at) == 1
    seen.start_anew()  # a new link
    assert looks(again_at) == 1
    seen.check()


def test_twins_are_told_once_and_looked_at_once_for_each_link() -> None:
    seen = Lives()
    seen.hear(said("r2", ELSEWHERE), 1.0)
    (life,) = seen.suspects("r1", PLACE, 2.0)
    seen.looked(life, 2.0)

    assert seen.set_twins("r1", "r2")
    assert not seen.set_twins("r2", "r1")
    assert seen.are_twins("r2", "r1")
    seen.hear(said("r2", ELSEWHERE), 500.0)
    assert not seen.suspects("r1", PLACE, 500.0)
    seen.start_anew()
    assert seen.suspects("r1", PLACE, 500.0)


def test_the_last_word_of_each_process_is_kept() -> None:
    seen = Lives()
    seen.hear(said("r1", at=10), 1.0)
    seen.hear(said("r1", at=20), 2.0)
    seen.hear(said("r1", at=10), 3.0)

    assert seen.is_last_word(said("r1", at=20))
    assert not seen.is_last_word(said("r1", at=10))
    assert not seen.is_last_word(said("r2", at=20))


def test_any_number_of_lives_fits_in_a_bounded_table() -> None:
    seen = Lives()
    for number in range(100):
        seen.hear(said(f"r{number}", ELSEWHERE), float(number))
        for life in seen.suspects("r", PLACE, float(number)):
            seen.looked(life, float(number))
        seen.set_twins("r", f"r{number}")
        seen.check()

    assert seen.is_last_word(said("r99", ELSEWHERE))


def settle(first, second, *, came_at, heard_at, now, keys):
    return second_link(
        first,
        second,
        came_at=came_at,
        heard_at=heard_at,
        now=now,
        yields=yields(*keys),
    )


SMALL, LARGE = KeyId(bytes(32)), KeyId(b"\xff" * 32)


@pytest.mark.parametrize(
    ("diallers", "heard_at", "now", "wanted"),
    [
        ((SMALL, LARGE), 0.0, 0.1, SecondLink.WAITS),
        ((SMALL, LARGE), 0.9, 1.0, SecondLink.WAITS),  # may have been on its way
        ((SMALL, LARGE), 1.0, 1.0, SecondLink.SURPLUS),
        ((SMALL, LARGE), 0.5, 2.5, SecondLink.TAKES),  # the first is dead
        ((LARGE, SMALL), 1.0, 1.0, SecondLink.TAKES),
        ((LARGE, LARGE), 1.0, 1.0, SecondLink.TAKES),  # it knows why it dialled again
        ((SMALL, SMALL), 0.0, 0.0, SecondLink.TAKES),
    ],
)
def test_of_two_links_that_both_sides_dialled_one_counts(
    diallers, heard_at, now, wanted
):
    place = settle("run", "run", came_at=0.0, heard_at=heard_at, now=now, keys=diallers)
    assert place is wanted


@given(
    st.permutations(["small's", "large's"]),
    st.permutations(["small's", "large's"]),
)
def test_both_ends_keep_the_same_one_in_whatever_order_they_see_them(here, there):
    dialler = {"small's": SMALL, "large's": LARGE}

    def kept(order):
        first, second = order
        place = settle(
            "run",
            "run",
            came_at=0.0,
            heard_at=1.0,
            now=1.0,
            keys=(dialler[first], dialler[second]),
        )
        return second if place is SecondLink.TAKES else first

    assert kept(here) == kept(there) == "small's"


def test_the_fingerprints_do_not_help_a_second_process():
    place = settle(
        "one", "two", came_at=0.0, heard_at=1.0, now=1.0, keys=(LARGE, SMALL)
    )
    assert place is SecondLink.REFUSED
