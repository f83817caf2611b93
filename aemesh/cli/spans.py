"""Spans of time as people type them: ``30s``, ``10m``, ``1h``, ``7d``."""

from __future__ import annotations

import re

from aemesh.errors import UsageError, quoted

_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def span(text: str) -> float:
    """Return the seconds of a span, more than none, or raise `UsageError`.

    It serves as the ``type`` of an option of click's.
    """
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not seconds:
        msg = f"span of time {quoted(text)}: expected one like 30s, 10m, 1h or 7d"
        raise UsageError(msg)
    return float(seconds)


def shown_span(seconds: float) -> str:
    """Return a span as it is typed, in the largest unit that has it in whole."""
    for unit in "dhm":
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.0f}s"
