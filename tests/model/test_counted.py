"""Numbers of things."""

from __future__ import annotations

import pytest

from aemesh.model.counted import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 cores"), (1, "1 core"), (3, "3 cores")]
)
def test_one_thing_is_not_many(number, words):
    assert counted(number, "core") == words
