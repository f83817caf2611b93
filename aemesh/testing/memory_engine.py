"""An engine without computing: it tells what was asked of it, and can be broken."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from aemesh.errors import EngineError
from aemesh.model.group import Haste, Progress, Receipt
from aemesh.model.job import JobSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aemesh.model.names import GroupName
    from aemesh.plugin import GroupContext, Job, Member, RunningEngine

HEAD = JobSpec(argv=("cat",), tls=True, lasting=True)
NODE = JobSpec(argv=("cat",), tls=True, lasting=True)


class MemoryEngine:
    """Starts ``cat`` on each member and remembers what happened, in order."""

    name = "memory"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails_on: set[str] = set()  # members, or groups: no node comes up
        self.bug_on: set[str] = set()  # members on which the plug-in trips itself
        self.retire_takes: dict[str, float] = {}  # seconds, by the member's name
        self.running: dict[GroupName, RunningMemory] = {}
        self.dies = trio.Event()

    @asynccontextmanager
    async def open(self, group: GroupContext) -> AsyncIterator[RunningEngine]:
        """Be up at once; die when `dies` is set."""
        left = await group.adopt_head()
        self.told.append(f"{'open' if left is None else 'resume'} {group.name}")
        head = left or await group.start_head(HEAD)
        self.running[group.name] = running = RunningMemory(self, group)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._die)
            nursery.start_soon(_watch, head)
            yield running
            nursery.cancel_scope.cancel()
        await head.end(term_after=0.0)
        self.told.append(f"close {group.name}")

    def spare_node(self) -> JobSpec | None:
        """Nothing is worth keeping warm."""
        return None

    def spare_head(self) -> JobSpec | None:
        """Nothing is worth keeping warm."""
        return None

    async def _die(self) -> None:
        await self.dies.wait()
        self.dies = trio.Event()
        msg = "the memory engine died"
        raise EngineError(msg)


async def _watch(head: Job) -> None:
    """Die with the head."""
    async for _ in head.output():
        pass
    msg = "the head of the memory engine ended"
    raise EngineError(msg)


class RunningMemory:
    """The engine on one group."""

    def __init__(self, engine: MemoryEngine, group: GroupContext) -> None:
        self.group = group
        self.nodes: dict[str, Job] = {}
        self.members: dict[str, Member] = {}
        self.expected: dict[str, float | None] = {}  # by label: when it leaves
        self.busy: set[str] = set()  # labels of those that work now
        self.worked_at: dict[str, float] = {}  # by label, on trio's clock
        self._engine = engine

    async def add(self, member: Member) -> None:
        """Start ``cat`` there."""
        if not self._engine.fails_on.isdisjoint({member.name, self.group.name}):
            msg = f"no engine on {member.name}"
            raise EngineError(msg, why="the test said so")
        if member.name in self._engine.bug_on:
            raise ZeroDivisionError
        left = await member.adopt()
        self.nodes[member.label] = left or await member.start(NODE)
        self.members[member.label] = member
        self.worked_at[member.label] = trio.current_time()
        self._tell("resume" if left else "add", member)

    async def retire(
        self, member: Member, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """Take as long as the test says, then end ``cat`` there."""
        now = haste is Haste.NOW
        if haste is not Haste.SOON:
            self._tell(haste.value, member)
        takes = self._engine.retire_takes.get(member.name, 0.0)
        wait = by_after if haste is Haste.LATE else min(takes, by_after)
        await trio.sleep(0.0 if now else wait)
        await _end(self.nodes.pop(member.label))
        self._tell("retire", member)
        fits = not now and takes <= by_after
        return Receipt(
            member.name,
            self.group.name,
            graceful=not now,
            moved=int(fits),
            moved_bytes=1000 * fits,
            lost=int(not fits),
        )

    async def expect(self, member: Member, *, by_after: float | None) -> None:
        """Remember when a member leaves."""
        await trio.lowlevel.checkpoint()
        self.expected[member.label] = by_after
        self._tell("stays" if by_after is None else "expect", member)

    async def progress(self, member: Member) -> Progress:
        """Return one piece that is still to be moved."""
        await trio.lowlevel.checkpoint()
        takes = self._engine.retire_takes.get(member.name, 0.0)
        return Progress(pieces=1, bytes=1000, needs_after=takes, moving=True)

    async def lost(self, member: Member) -> None:
        """Forget the member."""
        self.nodes.pop(member.label, None)
        self._tell("lost", member)

    async def idle_after(self) -> Mapping[str, float]:
        """Return how long ago each member worked, as the test has it."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        return {
            label: 0.0 if label in self.busy else now - self.worked_at[label]
            for label in self.nodes
        }

    def connect_info(self) -> Mapping[str, str]:
        """Return something to find in an environment."""
        return {"MEMORY_GROUP": self.group.name, "MEMORY_TLS": "{tls}"}

    def _tell(self, what: str, member: Member) -> None:
        self._engine.told.append(f"{what} {member.label}")


async def _end(job: Job) -> None:
    """End a job at once: its output is read, so it waits for nobody."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, job)
        await job.end(term_after=0.0)


async def _read(job: Job) -> None:
    async with aclosing(job.output()) as output:
        async for _ in output:
            pass
