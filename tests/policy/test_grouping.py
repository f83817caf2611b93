"""Which group a free worker goes to."""

from __future__ import annotations

import pytest

from aemesh.policy.grouping import place


@pytest.mark.parametrize(
    ("last", "members", "accepts", "expected"),
    [
        (None, {}, set(), None),
        (None, {"A": 0}, set(), None),
        (None, {"A": 5}, {"A"}, "A"),
        (None, {"A": 5, "B": 2}, {"A", "B"}, "B"),
        (None, {"A": 2, "B": 2}, {"A", "B"}, "A"),  # by name, so never by chance
        (None, {"A": 5, "B": 2}, {"A"}, "A"),
        ("A", {"A": 5, "B": 2}, {"A", "B"}, "A"),
        ("A", {"A": 5, "B": 2}, {"B"}, "B"),
        ("gone", {"A": 1}, {"A"}, "A"),
        ("A", {"A": 1}, set(), None),
    ],
)
def test_a_worker_is_placed_as_the_table_says(last, members, accepts, expected):
    assert place(last=last, members=members, accepts=accepts) == expected
