"""Log lines about strangers: so many a minute, the rest is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.policy.lograte import LogRate, LogTurn


def test_the_first_lines_of_a_minute_are_written():
    rate = LogRate(3)

    turns = [rate.turn(now=10.0 + i) for i in range(5)]

    assert [turn.write for turn in turns] == [True, True, True, False, False]


def test_the_next_minute_tells_how_many_were_left_out():
    rate = LogRate(2)
    for _ in range(7):
        rate.turn(now=0.0)

    assert rate.turn(now=60.0) == LogTurn(write=True, left_out=5)
    assert rate.turn(now=60.1) == LogTurn(write=True)


@given(st.lists(st.floats(0, 600), max_size=400))
def test_no_line_is_lost_from_the_count(moments: list[float]):
    rate = LogRate(2)

    turns = [rate.turn(now=now) for now in sorted(moments)]
    last = rate.turn(now=10_000.0)

    told = sum(turn.write for turn in turns) + sum(turn.left_out for turn in turns)
    assert told + last.left_out == len(moments)


def test_a_flood_writes_no_more_than_the_limit():
    rate = LogRate()

    written = sum(rate.turn(now=i / 1000).write for i in range(10_000))

    assert written == limits.STRANGER_LOGS_PER_MINUTE
