"""One job's output goes to whoever is attached, its input comes from there.

Nothing is kept of a job that somebody reads: a master that does not read fills TCP,
and the job waits in its write.  A job lives no longer than its stream, unless it is
*lasting*: then it goes on while nobody is attached, within its lease's grace, and the
last of what it says meanwhile is kept for whoever comes next.  What it asks waits for
that, too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage, UnreachableError
from aemesh.model.job import Channel, Chunk
from aemesh.protocol.streams import (
    Side,
    StreamReader,
    encode_chunk,
    encode_exit,
    encode_question,
)
from aemesh.worker.relay import Relay

if TYPE_CHECKING:
    from aemesh.plugin import Job


class JobStream:
    """What carries one job; `attach` and `carry` as often as somebody comes."""

    def __init__(self, job: Job, *, lasting: bool, relay: Relay | None = None) -> None:
        self.job = job
        self.lasting = lasting
        self.relay = relay or Relay()
        self._asking = trio.CancelScope()
        self.attached = trio.Event()  # for the first time
        self._taken = False
        self._stream: trio.abc.Stream | None = None
        self._carrying = trio.CancelScope()
        self._sending = trio.Lock()
        self._send_scope = trio.CancelScope()
        self._kept: deque[Chunk] = deque()
        self._kept_bytes = 0
        self._over = trio.Event()

    def __repr__(self) -> str:
        state = "detached" if self._stream is None else "attached"
        return f"<JobStream of {self.job!r}: {state}>"

    @property
    def is_free(self) -> bool:
        """Whether somebody may attach: nobody has, or it may change hands."""
        return self.lasting or not self._taken

    def take(self) -> None:
        """Note that a stream is on its way to be attached."""
        self._taken = True

    async def _run(self) -> None:
        """Pass the output on to its end, and then the exit; once it is attached."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask)
                async for chunk in self.job.output():
                    await self._pass(chunk)
                exit_ = await self.job.wait()
                async with self._sending:
                    self._asking.cancel()  # here it is between two frames
                    await self._send(encode_exit(exit_))
        finally:
            self._over.set()

    async def _ask(self) -> None:
        """Pass on what the job asks, one whole message after the other."""
        with self._asking:
            while True:
                message = await self.relay.next_unsent()
                stream = self._stream
                for frame in encode_question(message):
                    async with self._sending:
                        # All of it goes to one stream; another is asked anew.
                        if self._stream is not stream or not await self._send(frame):
                            break

    async def attach(self, stream: trio.abc.Stream, crew: trio.Nursery) -> None:
        """Make this the job's stream; whoever had it before has it no more."""
        self.hang_up()
        async with self._sending:
            self._stream = stream
            self._carrying = trio.CancelScope()
            while self._kept and await self._send(encode_chunk(self._kept[0])):
                self._kept_bytes -= len(self._kept.popleft().data)
        self.relay.ask_again()
        if not self.attached.is_set():
            self.attached.set()
            crew.start_soon(self._run)

    async def carry(self, stream: trio.abc.Stream, early: bytes) -> None:
        """Take input from an attached stream until it ends, or the job does.

        `early` are bytes that were read already.  Without its stream a job is ended,
        unless it is lasting.
        """
        if self._stream is not stream:
            return  # it broke, or another took its place
        with self._carrying:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                nursery.start_soon(self._take_all, stream, early, scope)
                await self._over.wait()
                scope.cancel()
        if self._stream is stream:
            self.hang_up()
        if not self.lasting:
            with trio.CancelScope(shield=True):  # bounded by TERM_AFTER and SIGKILL
                await self.job.end(term_after=limits.TERM_AFTER)
        async with self._sending:
            pass  # nothing is being sent on it any more: it may be closed

    def hang_up(self) -> None:
        """Part with the stream at once, also if its other end reads nothing."""
        self._stream = None
        self._carrying.cancel()
        self._send_scope.cancel()

    async def _take_all(
        self, stream: trio.abc.Stream, early: bytes, scope: trio.CancelScope
    ) -> None:
        """Take input and answers to the end of the stream."""
        reader = StreamReader(Side.AGENT)
        data = early
        try:
            while True:
                chunks = reader.receive_untrusted(data)
                # Before its input: a job that reads none has its answers all the same.
                while reader.messages:
                    self.relay.answer(reader.messages.popleft())
                for item in chunks:
                    await _take(self.job, item)
                data = bytes(await stream.receive_some(limits.CHUNK_BYTES))
                if not data:
                    break
        except (BadMessage, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _pass(self, chunk: Chunk) -> None:
        async with self._sending:
            if not await self._send(encode_chunk(chunk)):
                self._keep(chunk)

    async def _send(self, data: bytes) -> bool:
        """Send to the stream there is; return whether all of it was taken."""
        stream = self._stream
        if stream is None:
            return False
        with trio.CancelScope() as self._send_scope:
            try:
                await stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            else:
                return True
        if self._stream is stream:
            self.hang_up()
        return False

    def _keep(self, chunk: Chunk) -> None:
        """Keep what nobody takes, for whoever attaches next; the oldest goes first."""
        if not self.lasting:
            return
        self._kept.append(chunk)
        self._kept_bytes += len(chunk.data)
        while self._kept_bytes > limits.DETACHED_OUTPUT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().data)


async def _take(job: Job, item: object) -> None:
    if not isinstance(item, Chunk) or item.channel is not Channel.STDIN:
        msg = "expected input for the job"
        raise BadMessage(msg)
    try:
        if item.data:
            await job.send(item.data)
        else:
            await job.close_input()
    except UnreachableError:
        pass  # it has ended; its exit is on the way
