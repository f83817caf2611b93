"""Questions and answers of any length on a job's stream, as pieces among its output.

::

    u32  number of the question, big endian
    u8   1 if this is the last piece of its message
    ...  data

Whole messages follow one another, each cut into pieces; output may come between two
pieces of one message, but no piece of another.  An answer has its question's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_BYTES = 5
_DATA_BYTES = limits.CHUNK_BYTES - HEAD_BYTES
_NUMBERS = 2**32


@dataclass(frozen=True, slots=True)
class Message:
    """A whole question or answer."""

    number: int
    data: bytes


def cut(message: Message) -> Iterator[bytes]:
    """Yield the pieces of a message, at least one."""
    number = (message.number % _NUMBERS).to_bytes(4, "big")
    data = memoryview(message.data)
    for at in range(0, max(len(data), 1), _DATA_BYTES):
        last = at + _DATA_BYTES >= len(data)
        yield b"".join((number, bytes((last,)), data[at : at + _DATA_BYTES]))


class Assembly:
    """Puts pieces together to messages, of at most `limits.RUN_MESSAGE_BYTES`."""

    def __init__(self) -> None:
        self._number = -1
        self._data = bytearray()

    def __repr__(self) -> str:
        return f"<Assembly: {len(self._data)} bytes of message {self._number}>"

    def receive_untrusted(self, piece: bytes) -> Message | None:
        """Take a piece; return the message that it completes.  Raises `BadMessage`."""
        if len(piece) < HEAD_BYTES or piece[4] > 1:
            msg = "a piece of no message"
            raise BadMessage(msg)
        number = int.from_bytes(piece[:4], "big")
        if self._data and number != self._number:
            msg = f"a piece of message {number} within {self._number}"
            raise BadMessage(msg)
        self._number = number
        self._data += piece[HEAD_BYTES:]
        if len(self._data) > limits.RUN_MESSAGE_BYTES:
            msg = f"a message of over {limits.RUN_MESSAGE_BYTES} bytes"
            raise BadMessage(msg)
        if not piece[4]:
            return None
        whole = Message(number, bytes(self._data))
        self._data = bytearray()
        return whole
