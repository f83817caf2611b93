"""The contract that engines are written against: what they get, what they owe.

An engine is a module-level object named in the entry-point group
``aemesh.engines``.  It sees this file, `aemesh.model` and `aemesh.errors`, and
nothing else of aemesh.  It runs inside the master; what it starts runs in
processes of its own, in the group's environment: its *head* beside the master
(`GroupContext.start_head`), its *nodes* on the members (`Member.start`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aemesh.model.group import Haste

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from aemesh.model.group import Progress, Receipt
    from aemesh.model.job import Chunk, JobExit, JobSpec
    from aemesh.model.names import GroupName, NodeName


class Output(Protocol):
    """A job's output, to be iterated over once; an async generator is one."""

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Return itself."""

    async def __anext__(self) -> Chunk:
        """Return the next chunk; waits for it."""

    async def aclose(self) -> None:
        """Stop reading; a job that still writes is told so by its broken pipe."""


class Job(Protocol):
    """A running job, here or on a member."""

    async def send(self, data: bytes) -> None:
        """Write to the job's standard input; raises `UnreachableError` if it ended."""

    async def close_input(self) -> None:
        """End the job's standard input."""

    def output(self) -> Output:
        """Iterate over its output as it comes, once; slow readers slow the job.

        What it asks (`aemesh.checkpoint`, …) is answered while somebody iterates.
        """

    async def wait(self) -> JobExit:
        """Wait until the job and its children are gone, however that came."""

    async def end(self, *, term_after: float) -> JobExit:
        """Ask the job to end, and end its whole tree after `term_after` seconds."""


class Member(Protocol):
    """A worker that serves this group, in one generation."""

    @property
    def name(self) -> NodeName:
        """The worker's name."""

    @property
    def label(self) -> str:
        """A name that no other member of this group ever had: ``office-1.4``."""

    @property
    def address(self) -> str:
        """The worker's IP address, without a port: where a node there may listen.

        Others may not get through to it: see `reach`.
        """

    @property
    def cores(self) -> int:
        """Processors that the group may use there."""

    @property
    def memory(self) -> int:
        """Bytes of memory that the group may use there."""

    async def start(self, spec: JobSpec) -> Job:
        """Start a job there; raises `EngineError` or `UnreachableError`."""

    async def reach(self, port: int) -> str:
        """Return HOST:PORT, under which the head and other members reach a port there.

        It is the worker's own address, or, where connections to it do not come through,
        one where aemesh listens and carries them to a job's port; only a job's.  What
        is carried is not encrypted but by the engine.  It holds as long as the member
        serves; a job need not listen yet.  Raises `EngineError`.
        """

    async def adopt(self) -> Job | None:
        """Return the lasting job that a former master started there, if it goes on.

        Its output may begin in the middle; what was written to it last may be half.
        """


class GroupContext(Protocol):
    """What an engine may ask of the group that it runs for."""

    @property
    def name(self) -> GroupName:
        """The group's name."""

    @property
    def address(self) -> str:
        """The IP address for members to reach the head; another in another network."""

    @property
    def head_is_here(self) -> bool:
        """Whether the head runs on the master's machine; an adopted one may not."""

    @property
    def closing(self) -> bool:
        """Whether it is about to end: all members are retired, and none comes."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that nodes are to have imported; named in the specs of their jobs.

        One that cannot be imported is told (`report`), and the group works without.
        """

    @property
    def settings(self) -> Mapping[str, str]:
        """What the group's user set of the engine; `Tunable.check_settings` took it."""

    async def start_head(self, spec: JobSpec) -> Job:
        """Start a job beside the master."""

    async def adopt_head(self) -> Job | None:
        """Return the lasting head that a former master started, if it goes on.

        The engine then goes on with it, and members that it has are added again.
        """

    def report(self, text: str) -> None:
        """Add one line to the group's history."""

    def member_broken(self, member: Member, why: str) -> None:
        """Say that the engine lost its node on a member that is still linked."""


class RunningEngine(Protocol):
    """An engine that is up on one group."""

    async def add(self, member: Member) -> None:
        """Bring the engine up on a member; return when it can take work.

        One that the head knows already is there again, for a new master.
        """

    async def retire(
        self, member: Member, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """Move work and data off a member; return then, or after `by_after` seconds.

        It may be cancelled and asked for again, with another end.
        """

    async def lost(self, member: Member) -> None:
        """Go on without a member that is gone; nothing can be asked of it."""

    def connect_info(self) -> Mapping[str, str]:
        """Return what a client's environment needs; ``{tls}`` is its TLS folder."""


@runtime_checkable
class Exec(Protocol):
    """An engine that runs one command on every member."""

    def run(
        self, spec: JobSpec
    ) -> AsyncGenerator[tuple[NodeName, Chunk | JobExit], None]:
        """Run `spec` on each member; yield output as it comes, and each exit."""


@runtime_checkable
class Idling(Protocol):
    """An engine that knows how long its members have had nothing to do."""

    async def idle_after(self) -> Mapping[str, float]:
        """Return seconds since each member's last work, by label; 0.0 while it works.

        A member that it says nothing of is not idle.  Raises `EngineError`.
        """


class Page(Protocol):
    """A connection to an engine's own web page, on which a client speaks HTTP."""

    async def send(self, data: bytes) -> None:
        """Say something; returns when it was taken.  Raises `EngineError`."""

    async def receive(self) -> bytes:
        """Return what comes next, empty at the end.  Raises `EngineError`."""

    async def aclose(self) -> None:
        """Close it."""


@runtime_checkable
class Showing(Protocol):
    """An engine that shows itself on a web page, at which nothing has to listen."""

    async def open_page(self) -> Page:
        """Open a connection to it; raises `EngineError` when there is no page."""


@runtime_checkable
class Departing(Protocol):
    """An engine that plans with members that will leave."""

    async def expect(self, member: Member, *, by_after: float | None) -> None:
        """Know that a member leaves in so many seconds, or with None: that it stays.

        Nothing is sent to it from now on that cannot end by then.  One that is told to
        stay is a full member again, even in the middle of its retirement.  Raises
        `EngineError`.
        """

    async def progress(self, member: Member) -> Progress:
        """Return how far a member's departure is.  Raises `EngineError`."""


@runtime_checkable
class Tunable(Protocol):
    """A kind of engine that has settings of its own; one without takes none."""

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Raise `UsageError` for a setting that a group may not have."""


class Engine(Protocol):
    """A kind of engine."""

    name: str

    def open(self, group: GroupContext) -> AbstractAsyncContextManager[RunningEngine]:
        """Bring the engine's head up; at the end of the block all of it is gone."""

    def spare_node(self) -> JobSpec | None:
        """Return what a worker may start before it is asked, to have it warm.

        A spare writes a line when it is; from then on it waits without waking up.
        """

    def spare_head(self) -> JobSpec | None:
        """Return what a master may start before it is asked, to have it warm."""
