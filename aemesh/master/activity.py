"""Whether jobs run on a member, and since when none does."""

from __future__ import annotations

import trio


class Activity:
    """The jobs of one member: how many run, and when the last one ended."""

    def __init__(self) -> None:
        self._running = 0
        self._ended_at = trio.current_time()

    def __repr__(self) -> str:
        return f"<Activity: {self._running} jobs>"

    def begin(self) -> None:
        """One more job runs."""
        self._running += 1

    def end(self) -> None:
        """One job is over."""
        self._running -= 1
        self._ended_at = trio.current_time()

    def idle_after(self) -> float:
        """Return the seconds since the last job, 0.0 while there is one."""
        return 0.0 if self._running else trio.current_time() - self._ended_at
