"""What goes out on a stream that many tasks send on: whole frames, one after the other.

A frame that has begun goes out to its end, also when whoever wanted it is cancelled:
behind half of one nothing could be said any more, and the stream would be lost to
everybody.  So no sender writes; one task does, and the others wait for it.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from aemesh import limits


@dataclass(eq=False, slots=True)
class _Frame:
    data: bytes
    is_out: bool = False
    over: trio.Event = field(default_factory=trio.Event)  # out, or never will be


class Outbox:
    """The frames that wait for a stream, and the task that writes them."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._waiting: deque[_Frame] = deque()
        self._filled = trio.Event()
        self._closed = False
        # Cancelled by nobody but `close`, which comes whenever the stream's owner ends.
        self._scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Outbox: {state}, {len(self._waiting)} frames wait>"

    async def send(self, data: bytes) -> bool:
        """Wait until a frame is out, and return whether it is: not after `close`.

        Who is cancelled while it waits for its turn has sent nothing; later, all.
        """
        if self._closed:
            return False
        frame = _Frame(data)
        self._waiting.append(frame)
        self._filled.set()
        try:
            await frame.over.wait()
        except trio.Cancelled:
            with suppress(ValueError):  # it has begun, and goes on without us
                self._waiting.remove(frame)
            raise
        return frame.is_out

    async def run(self) -> None:
        """Write until `close`; raises what the stream does when it breaks.

        Raises `trio.TooSlowError` if the peer does not take a frame.
        """
        try:
            with self._scope:
                while not self._closed:
                    await self._write()
        finally:
            self.close(patience=0.0)
            self.ended.set()

    async def _write(self) -> None:
        """Write what waits, and wait for more."""
        while self._waiting and not self._closed:
            frame = self._waiting.popleft()
            try:
                with trio.fail_after(limits.FRAME_AFTER):
                    await self._stream.send_all(frame.data)
                frame.is_out = True
            finally:
                frame.over.set()
        if not self._closed:
            self._filled = trio.Event()
            await self._filled.wait()

    def close(self, *, patience: float) -> None:
        """Begin no more frames, and leave seconds to the one that goes out now."""
        if self._closed:
            return
        self._closed = True
        self._scope.deadline = trio.current_time() + patience
        for frame in self._waiting:
            frame.over.set()
        self._waiting.clear()
        self._filled.set()
