"""A member and its jobs as an engine sees them, over the link to the worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    BusyError,
    EngineError,
    NotBegunError,
    PeerError,
    UnreachableError,
    quoted,
)
from aemesh.master.activity import Activity
from aemesh.master.answering import Answering
from aemesh.master.asked import Asked
from aemesh.master.delegation import Delegation
from aemesh.model.job import Channel, Chunk, JobExit, JobSpec
from aemesh.model.names import JobId, NodeName
from aemesh.net.link import Link
from aemesh.net.shake import Channel as NetChannel
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.streams import Side, StreamReader, encode_chunk
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

if TYPE_CHECKING:
    from aemesh.model.address import Address
    from aemesh.plugin import Job

B = TypeVar("B", bound=wire.Body)

# Dials a further connection to the worker of a link.
DialStream = Callable[[], Awaitable[NetChannel]]
# Starts a task of the master's.
Spawn = Callable[..., None]


class Ports(Protocol):
    """The ports of one member; `aemesh.master.reach.MemberReach`."""

    async def reach(self, port: int) -> Address:
        """Return where others reach a port there; raises `EngineError`."""


@dataclass(slots=True)
class Tie:
    """What ties one life of a group to its jobs; cut, they are left as they run.

    Whoever comes next takes them up again.
    """

    is_cut: bool = False


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteHost:
    """A node that holds our lease and runs jobs under it: a worker, or the keeper."""

    name: NodeName
    label: str
    address: str
    cores: int
    memory: int
    generation: int
    link: Link
    dial_stream: DialStream
    certificate: str
    authority: str
    wall: Callable[[], float]
    activity: Activity = field(default_factory=Activity)  # of jobs started by this
    running: set[RemoteJob] = field(default_factory=set, compare=False)
    tie: Tie = field(default_factory=Tie)
    broke: Callable[[], None] = _nothing  # called when a job's stream ends before it
    asked: Asked | None = None  # who answers its jobs; None: nobody
    spawn: Spawn | None = None  # where answers are made, beside all else

    async def start_as(self, job_id: JobId, spec: JobSpec) -> Job:
        """Start a job under this id.

        Raises `EngineError`; or `UnreachableError`, which is a `NotBegunError` as long
        as the link is up: then the job was called off, if it was begun at all.
        """
        msg = f"{self.name} did not start a job"
        try:
            body = self._order(job_id, spec, await self._proxy(job_id))
            try:
                await ask(self.link, body, wire.Started, within=limits.ANSWER_AFTER)
                channel = await self.dial_stream()
                return await _attach(channel, job_id, self)
            except BaseException:  # cancelled, or the worker was not reached again
                if not spec.lasting:  # whoever comes next may have a lasting one
                    await self._call_off(job_id)
                raise
        except UnreachableError as exc:
            if self.link.closed is not None:
                raise
            raise NotBegunError(msg, why=str(exc)) from exc
        except BusyError as exc:
            raise NotBegunError(msg, why=str(exc)) from exc
        except AemeshError as exc:
            raise EngineError(msg, why=str(exc)) from exc

    async def _call_off(self, job_id: JobId) -> None:
        """End a job that nobody will attach to; it would wait for that, else."""
        body = wire.End(job=job_id, term_after=limits.TERM_AFTER)
        with trio.move_on_after(limits.TERM_AFTER, shield=True):
            with contextlib.suppress(UnreachableError):
                await self.link.tell(body)

    async def hang_up(self, why: str) -> None:
        """End the streams of all jobs: a worker that is cut off does not close them."""
        for job in tuple(self.running):
            await job.hang_up(why)

    def dismiss(self) -> None:
        """It serves us no more: what its jobs ask from now on is refused."""
        if self.asked is not None:
            self.asked.close()

    async def attach(self, job_id: JobId) -> Job:
        """Take up a lasting job that runs there; raises as `start_as`."""
        return await _attach(await self.dial_stream(), job_id, self)

    async def _proxy(self, job_id: JobId) -> str:
        """Return the user's identity for a job; a keeper's have none."""
        del job_id
        return ""

    def _order(self, job_id: JobId, spec: JobSpec, proxy: str) -> wire.Start:
        return wire.Start(
            job=job_id,
            generation=self.generation,
            argv=spec.argv,
            env=dict(spec.env),
            files=dict(spec.files),
            tls=spec.tls,
            certificate=self.certificate if spec.tls else "",
            authority=self.authority if spec.tls else "",
            proxy=proxy,
            lasting=spec.lasting,
            preload=spec.preload,
            asks=self.asked is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMember(RemoteHost):
    """A worker in one generation of a group; implements `aemesh.plugin.Member`."""

    next_job: Callable[[], JobId]
    delegation: Callable[[], Delegation | None]  # asked for each job anew
    note: Callable[[JobId], Awaitable[None]]  # a lasting job, before it starts
    ports: Ports
    left: tuple[JobId, ...] = ()  # lasting jobs that a former master started
    commands: Activity = field(default_factory=Activity)  # of those beside the engine

    async def start(self, spec: JobSpec) -> Job:
        """Start a job there; raises `EngineError` or `UnreachableError`."""
        job_id = self.next_job()
        if spec.lasting:
            await self.note(job_id)
        return await self.start_as(job_id, spec)

    async def reach(self, port: int) -> str:
        """Return where others reach a port there, as HOST:PORT."""
        return str(await self.ports.reach(port))

    async def adopt(self) -> Job | None:
        """Return the job of the engine that goes on there, if one does."""
        for job_id in reversed(self.left):
            with contextlib.suppress(EngineError):
                return await self.attach(job_id)
        return None

    async def _proxy(self, job_id: JobId) -> str:
        """Return the user's identity for a key that the worker makes for this job."""
        delegation = self.delegation()
        if delegation is None:
            return ""
        wish = wire.Delegate(job=job_id, generation=self.generation)
        within = limits.ANSWER_AFTER
        made = await ask(self.link, wish, wire.Delegated, within=within)
        return delegation.sign_untrusted(made.csr, now=self.wall())


class RemoteJob:
    """A job on a member; implements `aemesh.plugin.Job`."""

    def __init__(
        self, channel: NetChannel, job_id: JobId, member: RemoteHost, early: bytes
    ) -> None:
        self._stream = channel.stream
        self._transport = channel.connection.stream
        self._job_id = job_id
        self._member = member
        self._answering: Answering | None = None
        if member.asked is not None and member.spawn is not None:
            self._answering = Answering(
                member.asked,
                spawn=member.spawn,
                send=self._send,
                hang_up=self.hang_up,
            )
        self._reader = StreamReader(Side.MASTER if self._answering else Side.OUTSIDE)
        self._early = early
        self._exit: JobExit | None = None
        self._ending = False  # by us
        self._over = trio.Event()
        self._sending = trio.Lock()
        self._lost = ""
        member.activity.begin()
        member.running.add(self)

    def __repr__(self) -> str:
        state = "running" if self._exit is None else f"ended with {self._exit.code}"
        return f"<RemoteJob {self._job_id} on {self._member.name}: {state}>"

    async def send(self, data: bytes) -> None:
        """Write to the job's standard input; raises `UnreachableError`."""
        for at in range(0, len(data), limits.CHUNK_BYTES):
            piece = data[at : at + limits.CHUNK_BYTES]
            await self._send(encode_chunk(Chunk(Channel.STDIN, piece)))

    async def close_input(self) -> None:
        """End the job's standard input."""
        await self._send(encode_chunk(Chunk(Channel.STDIN, b"")))

    async def output(self) -> AsyncGenerator[Chunk, None]:
        """Iterate over the job's output as it comes, once."""
        data = self._early
        try:
            while True:
                items = self._reader.receive_untrusted(data)
                self._begin_answers()
                for n, item in enumerate(items, 1):
                    if n % limits.ITEMS_A_TURN == 0:
                        await trio.lowlevel.checkpoint()
                    if isinstance(item, JobExit):
                        self._finish(item)
                        return
                    if item.channel is Channel.STDIN:
                        return  # no job's output; engines know two channels
                    if item.data:
                        yield item
                data = bytes(await self._stream.receive_some(limits.CHUNK_BYTES))
                if not data:
                    break
            self._note_break()
        except (trio.BrokenResourceError, trio.ClosedResourceError, BadMessage):
            self._note_break()
        finally:
            # Whoever stops reading, or lost the worker, has seen the end of it.
            self._finish(self._cut_off())
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._transport)

    def _begin_answers(self) -> None:
        while self._answering and self._reader.messages:
            self._answering.begin_untrusted(self._reader.messages.popleft())

    async def wait(self) -> JobExit:
        """Wait for the end of the job; somebody has to read `output` meanwhile."""
        await self._over.wait()
        assert self._exit is not None
        return self._exit

    async def end(self, *, term_after: float) -> JobExit:
        """Have the worker end the job; one that is out of reach has none of ours."""
        self._ending = True
        if not self._member.tie.is_cut:
            await self._ask_end(term_after)
        await trio.aclose_forcefully(self._transport)
        self._finish(self._cut_off())
        return await self.wait()

    async def _ask_end(self, term_after: float) -> None:
        body = wire.End(job=self._job_id, term_after=term_after)
        with trio.move_on_after(term_after + limits.TERM_AFTER):
            with contextlib.suppress(UnreachableError, PeerError):
                await self._member.link.request(body, wire.Done)
            with trio.move_on_after(limits.TERM_AFTER):
                await self._over.wait()

    def _note_break(self) -> None:
        if not self._ending:
            self._member.broke()

    async def hang_up(self, why: str) -> None:
        """Have the output end here and now, with this reason."""
        self._lost = why
        await trio.aclose_forcefully(self._transport)

    def _cut_off(self) -> JobExit:
        return JobExit(-1, self._lost or "the stream to the worker ended")

    def _finish(self, exit_: JobExit) -> None:
        if self._exit is None:
            self._exit = exit_
            self._member.running.discard(self)
            self._member.activity.end()
            self._over.set()

    async def _send(self, data: bytes) -> None:
        if self._member.tie.is_cut:
            msg = f"job {self._job_id} is left to whoever comes next"
            raise UnreachableError(msg)
        async with self._sending:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                msg = f"job {self._job_id} has ended"
                raise UnreachableError(msg) from exc


async def ask(link: Link, body: wire.Body, kind: type[B], *, within: float) -> B:
    """Return a worker's answer; raises `UnreachableError` if it keeps us waiting."""
    with trio.move_on_after(within):
        return await link.request(body, kind)
    msg = f"{link.peer.name} does not do what it is asked"
    raise UnreachableError(msg, why=f"no answer in {within:g} s")


async def _attach(channel: NetChannel, job_id: JobId, member: RemoteHost) -> RemoteJob:
    """Say on a fresh stream which job it is for."""
    body = wire.Attach(job=job_id)
    return RemoteJob(channel, job_id, member, await say_first(channel, body))


async def say_first(channel: NetChannel, body: wire.Body) -> bytes:
    """Say on a fresh stream what it is for; return what came behind the worker's yes.

    Raises `EngineError` for its no, `UnreachableError` or `BadMessage`; the stream is
    then closed.
    """
    name = channel.peer.name
    try:
        data = encode_frame(wire.encode(body, n=1), limit=limits.HELLO_BYTES)
        await channel.stream.send_all(data)
        with trio.fail_after(limits.HELLO_AFTER):
            return await _read_answer(channel)
    except BaseException as exc:
        await trio.aclose_forcefully(channel.connection.stream)
        if isinstance(exc, (trio.BrokenResourceError, trio.TooSlowError)):
            msg = f"{name} dropped a stream"
            raise UnreachableError(msg) from exc
        raise


async def _read_answer(channel: NetChannel) -> bytes:
    """Read the worker's yes; return what came behind it."""
    frames = FrameReader(limit=limits.FRAME_BYTES)
    frames.receive_untrusted(channel.leftover)
    while (frame := frames.next_untrusted()) is None:
        data = await channel.stream.receive_some(limits.CHUNK_BYTES)
        if not data:
            msg = f"{channel.peer.name} closed a stream"
            raise UnreachableError(msg)
        frames.receive_untrusted(bytes(data))
    _check_yes(frame, channel.peer.name)
    return frames.leftover()


def _check_yes(frame: bytes, name: str) -> None:
    envelope = decode_untrusted(frame, wire.Envelope)
    if envelope.t == "failed":
        failed = convert_untrusted(envelope.b, wire.Failed)
        msg = f"{name} does not carry a stream"
        raise EngineError(msg, why=quoted(failed.what))
    if envelope.t != "done":
        msg = f"expected done on a stream, got {quoted(envelope.t)}"
        raise BadMessage(msg)
