"""Moments as people type them: ``17:30``, ``+2h``, ``2026-12-01T08:00``; local time."""

from __future__ import annotations

import datetime as dt
import re

from aemesh.cli.spans import span
from aemesh.errors import UsageError, quoted

_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}", re.ASCII)


def moment(text: str, *, now: float, zone: dt.tzinfo | None = None) -> float:
    """Return a moment in seconds since 1970, later than `now`; raises `UsageError`.

    A time of day is the next one: tomorrow's, if today's has passed.  `zone` is the
    machine's unless given.  A time that the clocks skip in spring counts on from the
    last one before, and of one that comes twice in autumn the first that is to come
    is meant.
    """
    if text.startswith("+"):
        return now + span(text[1:])
    found = _read(text, _local(now, zone).date(), now, zone)
    if found is None:
        msg = f"moment {quoted(text)}: expected one like 17:30, +2h or 2026-12-01T08:00"
        raise UsageError(msg)
    if found <= now:
        msg = f"moment {quoted(text)} has passed"
        raise UsageError(msg)
    return found


def _read(
    text: str, today: dt.date, now: float, zone: dt.tzinfo | None
) -> float | None:
    try:
        if _DATE.fullmatch(text):
            return _next(dt.datetime.fromisoformat(text), now, zone)
        time = _TIME.fullmatch(text)
        if time is None:
            return None
        of_day = dt.time(int(time[1]), int(time[2]))
        first = _next(dt.datetime.combine(today, of_day), now, zone)
        if first > now:
            return first
        tomorrow = today + dt.timedelta(days=1)
        return _next(dt.datetime.combine(tomorrow, of_day), now, zone)
    except (ValueError, OverflowError):
        return None


def _next(naive: dt.datetime, now: float, zone: dt.tzinfo | None) -> float:
    """Return the first of the moments with this local time that is to come."""
    folds = (naive.replace(fold=fold, tzinfo=zone) for fold in (0, 1))
    first, second = (one.timestamp() for one in folds)
    # In spring the second reading of a skipped time is the earlier one, and no time.
    return second if first <= now < second else first


def _local(at: float, zone: dt.tzinfo | None) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, zone or dt.UTC).astimezone(zone)
