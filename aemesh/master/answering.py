"""The questions of one job that are being answered, on its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage, UnreachableError
from aemesh.protocol.pieces import Message
from aemesh.protocol.streams import encode_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aemesh.master.asked import Asked


class Answering:
    """Answers each question in a task of its own; the answers go out one by one."""

    def __init__(
        self,
        asked: Asked,
        *,
        spawn: Callable[..., None],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._asked = asked
        self._spawn = spawn
        self._send = send
        self._turn = trio.Lock()
        self._open = 0
        self._held = 0  # bytes of the open ones

    def __repr__(self) -> str:
        return f"<Answering: {self._open} questions of {self._held} bytes>"

    def begin_untrusted(self, message: Message) -> None:
        """Begin to answer; raises `BadMessage` for more than an agent lets through."""
        size = len(message.data)
        if (
            self._open >= limits.JOB_QUESTIONS
            or self._held + size > limits.JOB_HELD_BYTES
        ):
            msg = f"{self._open} questions of {self._held} bytes at one time"
            raise BadMessage(msg)
        self._open += 1
        self._held += size
        self._spawn(self._answer, message)

    async def _answer(self, message: Message) -> None:
        try:
            said = Message(message.number, await self._asked.answer(message.data))
            async with self._turn:  # no piece of another may come between
                for frame in encode_answer(said):
                    await self._send(frame)
        except UnreachableError:
            pass  # it is asked again on the job's next stream, if it has one
        finally:
            self._open -= 1
            self._held -= len(message.data)
