"""When the steps of a departure are due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.group import Haste
from aemesh.policy.departure import Moments, moments


@pytest.mark.parametrize(
    ("notice", "haste", "due"),
    [
        (3600.0, Haste.LATE, Moments(3000.0, 3595.5, 3597.5, 3599.5)),
        (600.0, Haste.LATE, Moments(0.0, 595.5, 597.5, 599.5)),
        (30.0, Haste.SOON, Moments(0.0, 25.5, 27.5, 29.5)),
        (3600.0, Haste.SOON, Moments(0.0, 3595.5, 3597.5, 3599.5)),
        (2.0, Haste.NOW, Moments(0.0, 0.2, 1.0, 1.8)),
        (0.0, Haste.SOON, Moments(0.0, 0.0, 0.0, 0.0)),
        (-5.0, Haste.SOON, Moments(0.0, -5.0, -5.0, -5.0)),
    ],
)
def test_each_step_is_due_in_time_for_the_end(notice, haste, due):
    found = moments(0.0, notice, haste)

    assert found.ask_at == pytest.approx(due.ask_at)
    assert found.moved_at == pytest.approx(due.moved_at)
    assert found.term_at == pytest.approx(due.term_at)
    assert found.kill_at == pytest.approx(due.kill_at)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from(Haste))
def test_the_steps_have_one_order_and_none_is_behind_the_end(now, notice, haste):
    end = now + notice

    due = moments(now, end, haste)

    steps = [due.ask_at, due.moved_at, due.term_at, due.kill_at, end]
    assert [round(step, 6) for step in steps] == sorted(
        round(step, 6) for step in steps
    )
