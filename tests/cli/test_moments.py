"""Moments as they are typed, in a zone whose clocks change twice a year."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from aemesh.cli.moments import moment
from aemesh.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("now", "text", "then"),
    [
        ("2026-11-25T16:00", "17:30", at("2026-11-25T17:30")),
        ("2026-11-25T16:00", "9:05", at("2026-11-26T09:05")),
        # already past, or just now: tomorrow
        ("2026-11-25T18:00", "17:30", at("2026-11-26T17:30")),
        ("2026-11-25T17:30", "17:30", at("2026-11-26T17:30")),
        ("2026-12-31T23:00", "00:15", at("2027-01-01T00:15")),
        ("2026-11-25T16:00", "+2h", at("2026-11-25T18:00")),
        ("2026-11-25T16:00", "+90s", at("2026-11-25T16:01") + 30),
        ("2026-11-25T16:00", "2026-12-01T08:00", at("2026-12-01T08:00")),
        ("2026-11-25T16:00", "2026-12-01 08:00", at("2026-12-01T08:00")),
        # a day of 23 hours, and one of 25
        ("2026-03-28T18:00", "17:30", at("2026-03-29T17:30")),
        ("2026-10-24T18:00", "17:30", at("2026-10-25T17:30")),
        ("2026-03-28T18:00", "+24h", at("2026-03-29T19:00")),
        # the clocks skip 02:30: half an hour behind 02:00 is 03:30 by them
        ("2026-03-29T00:30", "02:30", at("2026-03-29T03:30")),
        # 02:30 comes twice: the first, and if that is past the second
        ("2026-10-25T01:00", "02:30", at("2026-10-25T02:30", fold=0)),
    ],
)
def test_a_moment_is_the_next_of_its_kind_in_local_time(now, text, then):
    assert moment(text, now=at(now), zone=BERLIN) == then


def test_between_the_two_of_one_time_in_autumn_the_second_is_meant():
    between = at("2026-10-25T02:45", fold=0)

    then = moment("02:30", now=between, zone=BERLIN)

    assert then == at("2026-10-25T02:30", fold=1)
    assert then - between == 45 * 60


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "25:00",
        "17:60",
        "17",
        "2h",
        "+",
        "+0s",
        "-2h",
        "2026-13-01T08:00",
        "2026-02-30T08:00",
        "17:30:00",
        "1\u0667:30",
        "2026-11-25T15:59",
    ],
)
def test_what_is_no_moment_to_come_is_refused(text):
    with pytest.raises(UsageError):
        moment(text, now=at("2026-11-25T16:00"), zone=BERLIN)


def test_without_a_zone_it_is_the_machines_own():
    now = dt.datetime(2026, 11, 25, 16, 0).astimezone()

    then = moment("17:30", now=now.timestamp())

    assert then == dt.datetime(2026, 11, 25, 17, 30).astimezone().timestamp()
