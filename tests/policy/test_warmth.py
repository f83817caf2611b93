"""Which spares are started and ended."""

from __future__ import annotations

import pytest

from aemesh.policy.warmth import plan_spares

WARM, COLD = True, False


@pytest.mark.parametrize(
    ("wanted", "present", "count", "start", "end"),
    [
        ("", [], 2, "", []),
        ("a", [], 0, "", []),
        ("a", [], 1, "a", []),
        ("a", [], 2, "aa", []),
        ("ab", [], 1, "a", []),  # the likeliest
        ("ab", [], 3, "aba", []),
        ("a", [("a", WARM)], 1, "", []),
        ("b", [("a", WARM)], 1, "b", []),  # until it is warm the other one serves
        ("b", [("a", WARM), ("b", COLD)], 1, "", []),
        ("b", [("a", WARM), ("b", WARM)], 1, "", [0]),
        ("", [("a", WARM)], 1, "", [0]),
        ("a", [("a", WARM), ("a", WARM)], 1, "", [1]),
        ("a", [("a", WARM)], 0, "", [0]),
    ],
)
def test_spares_are_started_and_ended(
    wanted: str, present: list[tuple[str, bool]], count: int, start: str, end: list[int]
) -> None:
    change = plan_spares(list(wanted), present, count=count)

    assert ("".join(change.start), list(change.end)) == (start, end)
