"""A program on a host whose lines are stamped with our clock as they come."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from aemesh.testing.lab import Host

_ENDS_WITHIN = 15.0


class Watched:
    """A running program; made by `open_watched`."""

    def __init__(self, process: trio.Process, started_at: float) -> None:
        self.process = process
        self.started_at = started_at  # before the exec; includes the lab's own chain
        self.lines: list[tuple[float, str]] = []
        self._news = trio.Event()
        self._ended = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def wait_line(
        self, pattern: str, *, times: int = 1, within: float = 20.0
    ) -> float:
        """Wait until `times` lines match; return when the last of them came."""
        with trio.move_on_after(within):
            while True:
                found = [at for at, line in self.lines if re.search(pattern, line)]
                if len(found) >= times:
                    return found[times - 1]
                if self._ended:
                    break
                await self._news.wait()
        said = "\n".join(line for _, line in self.lines[-20:])
        what = f"no line like {pattern!r} came within {within:g} s:\n{said}"
        raise RuntimeError(what)

    async def wait_until(self, true: Callable[[], bool], *, within: float = 30) -> None:
        """Wait until its lines make something true."""
        with trio.fail_after(within):
            while not true():
                await self._news.wait()

    def lines_like(self, pattern: str) -> list[str]:
        """Return what matched, in order."""
        return [line for _, line in self.lines if re.search(pattern, line)]

    async def end(self) -> None:
        """Ask it to leave, as Ctrl-C does, and see to it that it goes."""
        self.process.terminate()
        with trio.move_on_after(_ENDS_WITHIN):
            await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def listen(self) -> None:
        """Stamp lines until it closes its output."""
        assert self.process.stdout is not None
        rest = b""
        while data := await self.process.stdout.receive_some(65536):
            at = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [(at, line.decode(errors="replace")) for line in lines]
            self._tell()
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def open_watched(
    host: Host, argv: Sequence[str], *, env: Mapping[str, str] | None = None
) -> AsyncIterator[Watched]:
    """Run a program while the block lasts; then it is told to leave."""
    started_at = time.monotonic()
    process = await host.start(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env or {}
    )
    watched = Watched(process, started_at)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.listen)
        try:
            yield watched
        finally:
            with trio.CancelScope(shield=True):
                await watched.end()
            nursery.cancel_scope.cancel()
