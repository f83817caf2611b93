"""Whether jobs run on a member, and since when none does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class Activity:
    """The jobs of one member: how many run, and when the last one ended."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = 0
        self.is_closed = False  # no more are to begin
        self._ended_at = trio.current_time()
        self._one_ended = trio.Event()

    def __repr__(self) -> str:
        return f"<Activity: {self.running} jobs>"

    def begin(self) -> None:
        """One more job runs."""
        self.running += 1

    def end(self) -> None:
        """One job is over."""
        self.running -= 1
        self.ended += 1
        self._ended_at = trio.current_time()
        self._one_ended.set()
        self._one_ended = trio.Event()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Have no more begin while the block lasts."""
        self.is_closed = True
        try:
            yield
        finally:
            self.is_closed = False

    async def wait_none(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await self._one_ended.wait()

    def idle_after(self) -> float:
        """Return the seconds since the last job, 0.0 while there is one."""
        return 0.0 if self.running else trio.current_time() - self._ended_at
