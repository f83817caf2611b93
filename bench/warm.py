"""Warm workers: from the word that a group may have them to the last registered.

The moments are those of the master's history: from what was asked (`group.set`, the
first `worker.draining`) to the last `worker.joined`, which comes after each of the
worker's processes has registered.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from aemesh.testing.lab import Host
from bench.watched import Watched, open_watched

ONE, TWO = "bench", "other"
# After a join: the next spares start after a second, and import for half of one each,
# on the cores of this machine.
_WARM_AFTER = 2.0
_WARM_EACH_AFTER = 0.6


@dataclass(frozen=True, slots=True)
class Story:
    """The history of a master, as it is followed."""

    lines: Watched
    since: float  # seconds since 1970: a history begins before this life of the master

    def events(self, kind: str, *, after: int = 0) -> list[dict[str, object]]:
        """Return the events of a kind behind a number."""
        told = [json.loads(line) for line in self.lines.lines_like("^{")]
        return [
            one
            for one in told
            if one["kind"] == kind
            and int(one["number"]) > after
            and float(one["at"]) >= self.since
        ]

    @property
    def last(self) -> int:
        """The number of the latest event."""
        found = self.lines.lines_like("^{")
        return int(json.loads(found[-1])["number"]) if found else 0

    async def wait(self, kind: str, *, count: int, after: int = 0) -> float:
        """Wait for so many events; return when the last was, by its own word."""
        await self.lines.wait_until(
            lambda: len(self.events(kind, after=after)) >= count
        )
        return float(str(self.events(kind, after=after)[count - 1]["at"]))

    def first(self, kind: str, *, after: int) -> float:
        """Return when the first event of a kind was."""
        return float(str(self.events(kind, after=after)[0]["at"]))


@asynccontextmanager
async def open_group(
    head: Host, hosts: Sequence[Host], *, cores: int = 1
) -> AsyncIterator[Story]:
    """Have a master of two groups, and workers of which all serve the first."""
    since = time.time()
    async with AsyncExitStack() as stack:
        words = ("--accept-new", "--group", ONE, "--group", TWO, "--min", "0")
        argv = (*head.aemesh, "master", *words)
        master = await stack.enter_async_context(open_watched(head, argv))
        await master.wait_line("is master of")
        follow = (*head.aemesh, "events", "--follow", "--json")
        story = Story(
            await stack.enter_async_context(open_watched(head, follow)), since
        )
        await story.wait("group.ready", count=2)
        await _aemesh(head, "group", "set", TWO, "--max", "0")
        for host in hosts:
            words = ("--accept-first-master", "--cores", str(cores))
            worker = (*host.aemesh, "worker", *words)
            await stack.enter_async_context(open_watched(host, worker))
        await story.wait("worker.joined", count=len(hosts))
        yield story


async def joins(
    head: Host, hosts: Sequence[Host], *, cores: int, times: int
) -> list[float]:
    """Let a group have all of them, again and again; return how long each took."""
    took = []
    async with open_group(head, hosts, cores=cores) as story:
        for _ in range(times):
            mark = story.last
            await _aemesh(head, "group", "set", ONE, "--max", "0")
            await story.wait("worker.retired", count=len(hosts), after=mark)
            await trio.sleep(_WARM_AFTER + _WARM_EACH_AFTER * len(hosts))
            mark = story.last
            await _aemesh(head, "group", "set", ONE, "--max", "none")
            done = await story.wait("worker.joined", count=len(hosts), after=mark)
            took.append(done - story.first("group.set", after=mark))
    return took


async def moves(head: Host, hosts: Sequence[Host], *, times: int) -> list[float]:
    """Move all of them to the other group and back; return how long each took."""
    took = []
    names = [host.name for host in hosts]
    async with open_group(head, hosts) as story:
        await _aemesh(head, "group", "set", TWO, "--max", "none", "--weight", "1")
        await _aemesh(head, "group", "move", *names, ONE)
        for target in [TWO, ONE] * ((times + 1) // 2):
            await trio.sleep(_WARM_AFTER + _WARM_EACH_AFTER * len(hosts))
            mark = story.last
            await _aemesh(head, "group", "move", *names, target)
            done = await story.wait("worker.joined", count=len(hosts), after=mark)
            took.append(done - story.first("worker.draining", after=mark))
    return took[:times]


async def _aemesh(head: Host, *words: str) -> None:
    await head.run([*head.aemesh, *words])
