"""When a node that nobody uses has waited for long enough.

Use is measured as the seconds since the last of it, by each who can know.  Some of it
leaves no trace, such as a client that has gone again; so one looks more often than
the span alone would ask for, and remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A span is exceeded by a sixtieth of it at most: an hour by a minute.
_LOOKS = 60


def next_look(idle: Iterable[float], exit_after: float) -> float | None:
    """Return in how many seconds to look again; None: it is time to end.

    `idle` are the seconds since each kind of use, 0.0 for one that goes on.
    """
    left = exit_after - min(idle, default=exit_after)
    if left <= 0:
        return None
    return min(left, exit_after / _LOOKS)
