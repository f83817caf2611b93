"""What the agent is told from outside: stop, stop now, or your warden is gone.

With a warden the news comes through its pipe, and SIGTERM directly too; without
one (laptop mode, tests) directly all.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
from typing import TYPE_CHECKING

import trio

from aemesh.host import warden

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import FrameType

_SIGNALS = {
    signal.SIGINT: warden.INTERRUPT,
    signal.SIGTERM: warden.TERMINATE,
    signal.SIGHUP: warden.TERMINATE,
}


class Notice(enum.Enum):
    """What the agent was told."""

    INTERRUPT = "interrupt"  # the user pressed Ctrl-C, each time
    TERMINATE = "terminate"  # somebody asked it to end, told once
    ORPHANED = "orphaned"  # the warden was killed: end all jobs at once


class Guard:
    """Receives notices, one at a time; they wait here until somebody asks."""

    def __init__(self, events: int | None, own: int) -> None:
        self._own = own
        self._events = events
        self._terminated = False
        self._epoll = select.epoll()
        self._epoll.register(own, select.EPOLLIN)
        if events is not None:
            self._epoll.register(events, select.EPOLLIN)

    async def receive(self) -> Notice:
        """Wait for the next notice and return it."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0, 1):
                notice = self._read(fd)
                if notice is not None:
                    return notice

    def _read(self, fd: int) -> Notice | None:
        byte = os.read(fd, 1)
        if byte == warden.INTERRUPT:
            return Notice.INTERRUPT
        if byte == b"":
            self._epoll.unregister(fd)
            return Notice.ORPHANED
        # One `kill` of a whole process group comes twice, by the pipe and directly.
        again, self._terminated = self._terminated, True
        return None if again else Notice.TERMINATE

    def close(self) -> None:
        """Stop listening; the warden's pipe stays open for a next guard."""
        self._epoll.close()

    def __repr__(self) -> str:
        return f"Guard({'with' if self._events is not None else 'without'} a warden)"


@contextlib.asynccontextmanager
async def open_guard() -> AsyncIterator[Guard]:
    """Take signals as notices, from here to the end of the block; main thread only."""
    events = warden.events_fd()
    direct = _SIGNALS if events is None else {signal.SIGTERM: warden.TERMINATE}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    guard = Guard(events, reading)
    try:
        with _written(direct, writing):
            yield guard
    finally:
        guard.close()
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _written(direct: dict[signal.Signals, bytes], writing: int) -> Iterator[None]:
    """Write each of these signals to a pipe, as one byte."""

    def write(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writing, direct[signal.Signals(number)])

    before = {
        number: signal.signal(number, write)
        for number in direct
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
