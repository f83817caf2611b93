"""How long a node waits for somebody to use it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.policy.idle import next_look


@pytest.mark.parametrize(
    ("idle", "exit_after", "expected"),
    [
        ([], 60.0, None),
        ([60.0, 90.0], 60.0, None),
        ([90.0, 0.0], 60.0, 1.0),
        ([59.5, 90.0], 60.0, 0.5),
        ([0.0], 3600.0, 60.0),
    ],
)
def test_the_latest_use_decides(
    idle: list[float], exit_after: float, expected: float | None
):
    assert next_look(idle, exit_after) == expected


_SPAN = st.floats(1.0, 1e6)


@given(st.lists(st.floats(0.0, 2e6), min_size=1), _SPAN)
def test_it_never_ends_early_nor_a_sixtieth_late(idle: list[float], exit_after: float):
    wait = next_look(idle, exit_after)

    assert (wait is None) == (min(idle) >= exit_after)
    if wait is not None:
        assert 0 < wait <= exit_after / 60
        assert min(idle) + wait <= exit_after * (1 + 1e-9)
