"""The questions of one job that are being answered, on its stream.

What a question asks for may be a million times as long as the question.  So a state is
brought into memory only when there is room for it, and goes from there when the agent
has taken it, or has had its time to.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
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
        hang_up: Callable[[str], Awaitable[None]],
    ) -> None:
        self._asked = asked
        self._spawn = spawn
        self._send = send
        self._hang_up = hang_up
        self._turn = trio.Lock()
        self._over = False  # nothing can be sent any more
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
            async with AsyncExitStack() as stack:
                take_room = partial(self._take_room, stack)
                data = await self._asked.answer(message.data, take_room)
                async with self._turn:  # no piece of another may come between
                    await self._say(Message(message.number, data))
        except UnreachableError:
            self._over = True  # it is asked again on the job's next stream, if any
        except trio.TooSlowError:
            self._over = True
            await self._hang_up(f"it took no answer for {limits.FRAME_AFTER:g} s")
        finally:
            self._open -= 1
            self._held -= len(message.data)

    async def _take_room(self, stack: AsyncExitStack) -> None:
        """Wait for room for a state, and have it until `stack` ends."""
        await stack.enter_async_context(self._asked.room())
        if self._over:
            msg = "the stream of the job ended"
            raise UnreachableError(msg)

    async def _say(self, said: Message) -> None:
        """Send an answer; raises `trio.TooSlowError` if a MiB of it is not taken."""
        sent = 0
        with trio.fail_after(limits.FRAME_AFTER) as patience:
            for frame in encode_answer(said):
                await self._send(frame)
                sent += len(frame)
                if sent >= limits.FRAME_BYTES:
                    sent = 0
                    patience.deadline = trio.current_time() + limits.FRAME_AFTER
