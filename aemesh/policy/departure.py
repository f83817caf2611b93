"""The moments of a departure: when what begins, so that all is gone at its end.

::

    ask ... the engine works and moves ... moved, SIGTERM, SIGKILL, the end

With less notice than `limits.DEPARTURE_NOTICE_AFTER` the spans behind "moved" shrink,
all alike: the end is the one thing that stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from aemesh import limits
from aemesh.model.group import Haste


@dataclass(frozen=True, slots=True)
class Moments:
    """When a departure's steps are due, on the clock of its end."""

    ask_at: float  # the master is asked to let us go
    moved_at: float  # the engine has moved what it can
    term_at: float  # jobs are asked to end
    kill_at: float  # what is left of them is killed


def moments(now: float, end: float, haste: Haste) -> Moments:
    """Return the moments of a departure that is agreed now."""
    notice = max(0.0, end - now)
    share = min(1.0, notice / limits.DEPARTURE_NOTICE_AFTER)
    ask_at = now
    if haste is Haste.LATE:
        ask_at = max(now, end - limits.DEPARTURE_LEAD_AFTER)
    return Moments(
        ask_at=ask_at,
        moved_at=end - share * limits.DEPARTURE_MOVED_BEFORE,
        term_at=end - share * limits.DEPARTURE_TERM_BEFORE,
        kill_at=end - share * limits.DEPARTURE_KILL_BEFORE,
    )
