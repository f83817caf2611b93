"""The `command` engine: one command on every member, with its output and exits."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError, UnreachableError
from aemesh.model.group import Haste, Receipt
from aemesh.model.job import Chunk, JobExit, JobSpec
from aemesh.model.names import GroupName, NodeName
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    from aemesh.plugin import GroupContext, Job, Member, RunningEngine

# The reader of the whole waits in the slowest member's line: back-pressure for all.
_WAITING = 0
# From SIGTERM to SIGKILL for a command that is called off as it starts.
_TERM_AFTER = 2.0
# What a shell says of a command that it could not start.
_NOT_STARTED = 127
Item = tuple[NodeName, Chunk | JobExit]


class CommandEngine:
    """Runs commands; has no head and nothing to keep warm."""

    name = "command"

    @asynccontextmanager
    async def open(self, group: GroupContext) -> AsyncIterator[RunningEngine]:
        """Be ready at once; nothing runs until `run` is called."""
        yield RunningCommand(group.name)

    def spare_node(self) -> JobSpec | None:
        """A command is not known before it is typed."""
        return None

    def spare_head(self) -> JobSpec | None:
        """There is no head."""
        return None


class RunningCommand:
    """The members, and a way to run something on all of them."""

    def __init__(self, group: GroupName) -> None:
        self._group = group
        self._members: dict[str, Member] = {}

    async def add(self, member: Member) -> None:
        """Take a member in."""
        self._members[member.label] = member

    async def retire(
        self, member: Member, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """Let a member go; what runs there is its master's to wait for."""
        if haste is Haste.LATE:  # it is used until then
            await trio.sleep(by_after)
        self._members.pop(member.label, None)
        return Receipt(member.name, self._group, graceful=True)

    async def lost(self, member: Member) -> None:
        """Forget a member."""
        self._members.pop(member.label, None)

    def connect_info(self) -> Mapping[str, str]:
        """A command needs no client."""
        return {}

    async def run(self, spec: JobSpec) -> AsyncGenerator[Item, None]:
        """Run `spec` on each member; yield output as it comes, and each exit.

        A member on which it cannot be started yields an exit of 127 with the reason.
        """
        async with open_run(self._members.values(), spec) as items:
            async for item in items:
                yield item


@asynccontextmanager
async def open_run(
    members: Iterable[Member], spec: JobSpec
) -> AsyncIterator[trio.MemoryReceiveChannel[Item]]:
    """Run `spec` on each member while the block lasts; give what they say."""
    send, receive = trio.open_memory_channel[Item](_WAITING)
    async with open_crew() as crew:
        async with send:
            for member in list(members):
                crew.start_soon(_run_on, member, spec, send.clone())
        async with receive:
            yield receive
        crew.cancel_scope.cancel()


async def _run_on(
    member: Member, spec: JobSpec, send: trio.MemorySendChannel[Item]
) -> None:
    async with send:
        try:
            job = await member.start(spec)
            await _close_input(job)
            async with aclosing(job.output()) as output:
                async for chunk in output:
                    await send.send((member.name, chunk))
            exit_ = await job.wait()
        except AemeshError as exc:
            exit_ = JobExit(_NOT_STARTED, str(exc))
        await send.send((member.name, exit_))


async def _close_input(job: Job) -> None:
    """Give a job no input; one whose output nobody will read is ended."""
    try:
        with suppress(UnreachableError):  # a quick one has ended
            await job.close_input()
    except BaseException:
        with trio.CancelScope(shield=True):
            await job.end(term_after=_TERM_AFTER)
        raise


ENGINE = CommandEngine()
