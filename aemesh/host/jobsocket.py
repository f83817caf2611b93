"""The socket beside a job's folder, over which it asks its agent.

::

    u32  length of what follows, big endian, at most `limits.RUN_MESSAGE_BYTES`
    ...  a question or an answer, as in `aemesh.protocol.questions`

Any process of the job may connect, and asks one question after the other.  The place
is our user's alone, and so is whoever connects.  A job that talks nonsense loses that
connection and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, BadMessage
from aemesh.host.control.shortpath import short_path
from aemesh.host.control.sockets import is_ours
from aemesh.protocol.questions import brings_state, refused
from aemesh.tasks.accepting import accept

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.host.callers import Callers

# What answers a job; it may take any time.  Raises `BadMessage` for nonsense.
Answer = Callable[[bytes], Awaitable[bytes]]

_log = logging.getLogger(__name__)
VARIABLE = "AEMESH_JOB_SOCKET"
_LENGTH = 4


def job_socket(room: Path) -> Path:
    """Return where the socket of the job with this folder is; beside that."""
    return room.absolute().with_name(f"{room.name}.sock")


def open_job_socket(room: Path) -> socket.socket:
    """Listen for the job with this folder; raises `OSError`."""
    path = job_socket(room)
    sock = socket.socket(socket.AF_UNIX)
    try:
        with short_path(path) as short:
            sock.bind(short)
        path.chmod(0o600)
        sock.listen(limits.JOB_CALLERS)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve_job_socket(
    sock: socket.socket,
    answer: Callable[[], Answer | None],
    *,
    large: trio.Semaphore,
    callers: Callers,
) -> None:
    """Answer what a job asks until cancelled; `large` questions take turns.

    So do those for a state, which is in memory until the job has taken it; of these
    each job has one at a time.  `answer` is asked for each question anew: a spare is
    nobody's job yet.
    """
    states, leave = trio.Lock(), partial(callers.leave, sock)
    try:
        with trio.socket.from_stdlib_socket(sock) as listener:
            async with trio.open_nursery() as nursery:
                while True:
                    await callers.enter(sock)
                    stream = trio.SocketStream(await accept(listener))
                    caller = _Caller(stream, answer, large, states)
                    nursery.start_soon(_serve, caller, leave)
    finally:
        callers.forget(sock)


async def _serve(caller: _Caller, leave: Callable[[], None]) -> None:
    try:
        async with caller.stream:
            await caller.run()
    except Exception:  # noqa: BLE001 - per connection; logged
        _log.exception("a connection of a job met a bug")
    finally:
        leave()


class _Caller:
    """One connection of one process of a job."""

    def __init__(
        self,
        stream: trio.SocketStream,
        answer: Callable[[], Answer | None],
        large: trio.Semaphore,
        states: trio.Lock,
    ) -> None:
        self.stream = stream
        self._answer = answer
        self._large = large
        self._states = states
        self._buffer = bytearray()

    async def run(self) -> None:
        """Answer one question after the other until it hangs up, or talks nonsense."""
        if not is_ours(self.stream.socket):
            _log.warning("dropped a connection of another user to a job's socket")
            return
        with contextlib.suppress(
            BadMessage, trio.TooSlowError, trio.BrokenResourceError
        ):
            while await self._fill(_LENGTH):
                length = int.from_bytes(self._buffer[:_LENGTH], "big")
                if length > limits.RUN_MESSAGE_BYTES:
                    msg = f"a question of {length} bytes"
                    raise BadMessage(msg)
                if length > limits.JOB_SMALL_BYTES:
                    async with self._large:
                        await self._reply(await self._question(length))
                elif brings_state(question := await self._question(length)):
                    async with self._states, self._large:
                        await self._reply(question)
                else:
                    await self._reply(question)

    async def _question(self, length: int) -> bytes:
        with trio.fail_after(limits.JOB_SAYS_AFTER):
            if not await self._fill(_LENGTH + length):
                msg = "it hung up within a question"
                raise BadMessage(msg)
        question = bytes(self._buffer[_LENGTH : _LENGTH + length])
        del self._buffer[: _LENGTH + length]
        return question

    async def _reply(self, question: bytes) -> None:
        """Answer; raises `trio.TooSlowError` if the job does not take it."""
        said = memoryview(await self._say(question))
        await self._send(len(said).to_bytes(_LENGTH, "big"))
        for at in range(0, len(said), limits.FRAME_BYTES):
            await self._send(said[at : at + limits.FRAME_BYTES])

    async def _send(self, data: bytes | memoryview) -> None:
        with trio.fail_after(limits.FRAME_AFTER):
            await self.stream.send_all(data)

    async def _say(self, question: bytes) -> bytes:
        answer = self._answer()
        if answer is None:
            what = "this is nobody's job yet"
            return refused(AemeshError(what, why="it waits to be given work"))
        try:
            return await answer(question)
        except BadMessage as error:
            return refused(error)

    async def _fill(self, length: int) -> bool:
        """Have that many bytes in the buffer; False at the end."""
        while len(self._buffer) < length:
            wanted = min(length - len(self._buffer), limits.CHUNK_BYTES)
            data = await self.stream.receive_some(wanted)
            if not data:
                return False
            self._buffer += data
        return True

    def __repr__(self) -> str:
        return f"<_Caller with {len(self._buffer)} bytes>"
