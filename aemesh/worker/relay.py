"""A job's questions on their way to its master, over the job's own stream.

A stream may break and another may be attached, of the same master or of the next one.
What was not answered until then is asked again there, as a whole: what the master
answers it has done for good, and what it does twice it does once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from aemesh.protocol.pieces import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

# Numbers fit their place in a piece; none is met again while its question is open.
_NUMBERS = 2**32


@dataclass(slots=True)
class _Open:
    """A question without an answer."""

    message: Message
    answered: trio.Event = field(default_factory=trio.Event)
    answer: bytes = b""


class Relay:
    """The open questions of one job."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._open: dict[int, _Open] = {}
        self._unsent: dict[int, None] = {}  # an ordered set
        self._more = trio.Event()

    def __repr__(self) -> str:
        return f"<Relay: {len(self._open)} questions, {len(self._unsent)} to be sent>"

    async def ask(self, question: bytes) -> bytes:
        """Return the master's answer, however long that takes."""
        number = next(self._numbers) % _NUMBERS
        mine = self._open[number] = _Open(Message(number, question))
        self._send([number])
        try:
            await mine.answered.wait()
        finally:
            del self._open[number]
            self._unsent.pop(number, None)
        return mine.answer

    def ask_again(self) -> None:
        """Have all that is open sent once more: there is another stream."""
        self._send(self._open)

    async def next_unsent(self) -> Message:
        """Return what is to be sent next; waits for it."""
        while not self._unsent:
            await self._more.wait()
        number = next(iter(self._unsent))
        del self._unsent[number]
        return self._open[number].message

    def answer(self, message: Message) -> None:
        """Take an answer; one that nobody waits for is passed over."""
        mine = self._open.get(message.number)
        if mine is not None:
            mine.answer = message.data
            mine.answered.set()

    def _send(self, numbers: Iterable[int]) -> None:
        self._unsent.update(dict.fromkeys(numbers))
        self._more.set()
        self._more = trio.Event()
