"""Spans of time that people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.cli.spans import shown_span, span
from aemesh.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("30s", 30), ("10m", 600), ("1h", 3600), ("7d", 604_800)],
)
def test_a_span_is_a_number_and_a_unit(text: str, seconds: float):
    assert span(text) == seconds
    assert shown_span(seconds) == text


NO_SPANS = ("", "h", "1", "0s", "00m", "-1h", "+1h", "1.5h", "1 h", "1H", "1w", "1h30m")


@pytest.mark.parametrize("text", [*NO_SPANS, "1h\n", "9999999999s", "\u0661h"])
def test_what_is_no_span_is_told_with_an_example(text: str):
    with pytest.raises(UsageError, match="expected one like 30s, 10m, 1h or 7d"):
        span(text)


@given(st.integers(1, 10**9 - 1))
def test_a_span_that_is_shown_can_be_typed(seconds: int):
    assert span(shown_span(float(seconds))) == seconds
