"""One command on every member: what is heard of each, and that none is left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import trio

from aemesh.engines.command import open_run
from aemesh.errors import UnreachableError
from aemesh.model.job import Channel, Chunk, JobExit, JobSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aemesh.plugin import Job, Member

SAID, EXIT = Chunk(Channel.STDOUT, b"done"), JobExit(3)
SPEC = JobSpec(argv=("date",))


@dataclass
class Quick:
    """A job that has ended by the time it is told anything, on a member of its own."""

    hangs: bool = False
    name: str = "office-1"
    closing: trio.Event = field(default_factory=trio.Event)
    ended: bool = False

    async def start(self, spec: JobSpec) -> Job:
        assert spec is SPEC
        return cast("Job", self)

    async def close_input(self) -> None:
        self.closing.set()
        if self.hangs:
            await trio.sleep_forever()
        msg = "job one has ended"
        raise UnreachableError(msg)

    async def output(self) -> AsyncGenerator[Chunk, None]:
        yield SAID

    async def wait(self) -> JobExit:
        return EXIT

    async def end(self, *, term_after: float) -> JobExit:
        await trio.sleep(term_after)
        self.ended = True
        return EXIT


async def test_a_quick_command_is_heard_to_its_end() -> None:
    async with open_run([cast("Member", Quick())], SPEC) as items:
        heard = [item async for item in items]

    assert heard == [("office-1", SAID), ("office-1", EXIT)]


async def test_a_command_that_is_called_off_as_it_starts_is_ended(
    autojump_clock,
) -> None:
    job = Quick(hangs=True)
    async with open_run([cast("Member", job)], SPEC):
        await job.closing.wait()

    assert job.ended
