"""One command on one member, with its input and output, while it runs there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from aemesh import limits
from aemesh.client.transport import encoded
from aemesh.errors import BadMessage, UnreachableError, UsageError
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.streams import StreamReader, encode_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aemesh.client.transport import Transport
    from aemesh.master.control_wire import RunJob

# What one frame has on top of its data: a length, and the channel.
_READ_BYTES = limits.CHUNK_BYTES + 5


class MemberJob:
    """A job that runs on a member; a context manager that ends it, and its whole tree.

    `send` waits while the job does not read, and the job waits while nobody iterates
    over `output`: who does both has a thread for one of them.  Each may be called from
    a thread of its own, and `end` from any.
    """

    def __init__(self, transport: Transport, order: RunJob) -> None:
        """Start it; raises what the master says if it does not start.

        Raises `UsageError` for an order that is too long, or cannot be said.
        """
        self.worker = order.worker
        words, most = encoded(order), limits.CONTROL_BODY_BYTES
        if len(words) > most:
            msg = f"a job of {len(words)} bytes cannot be started"
            raise UsageError(
                msg,
                why=f"with its files it has {most} at most",
                hint="send what is large to its standard input",
            )
        first = encode_frame(words, limit=most)
        self._talk = transport.talk("POST", "/v1/jobs", first)
        self._reader = StreamReader()
        self._sending = threading.Lock()
        self._exit: JobExit | None = None

    def send(self, data: bytes) -> None:
        """Write to its standard input; raises `UnreachableError` once it has ended."""
        for at in range(0, len(data), limits.CHUNK_BYTES):
            self._send(data[at : at + limits.CHUNK_BYTES])

    def close_input(self) -> None:
        """End its standard input."""
        self._send(b"")

    def output(self) -> Iterator[Chunk]:
        """Yield what it writes as it comes, once; then `wait` has the exit."""
        while self._exit is None:
            data = self._talk.read(_READ_BYTES)
            if not data:
                msg = f"the master ended a job on {self.worker}"
                raise UnreachableError(msg, why="it said no exit code")
            try:
                items = self._reader.receive_untrusted(data)
            except BadMessage as error:
                msg = "the master's answer cannot be read"
                raise UnreachableError(msg, why=str(error)) from error
            for item in items:
                if isinstance(item, JobExit):
                    self._exit = item
                    self._talk.hang_up()
                else:
                    yield item

    def wait(self) -> JobExit:
        """Return how it ended, once it has; output that nobody took is thrown away.

        A `code` of -1 is a member that was lost; the reason says how.
        """
        for _ in self.output():
            pass
        assert self._exit is not None
        return self._exit

    def end(self) -> None:
        """End it now; it gets SIGTERM, and two seconds later what is left SIGKILL."""
        self._talk.hang_up()

    def _send(self, data: bytes) -> None:
        with self._sending:
            try:
                self._talk.write(encode_chunk(Chunk(Channel.STDIN, data)))
            except OSError as error:
                msg = f"the job on {self.worker} takes no input"
                raise UnreachableError(msg, why="it has ended") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __repr__(self) -> str:
        state = "running" if self._exit is None else f"ended with {self._exit.code}"
        return f"<MemberJob on {self.worker}: {state}>"
