"""The stream of one job: its input and output as small tagged frames.

::

    u32  length of what follows, big endian
    u8   channel: 0 input, 1 output, 2 error output, 3 exit, 4 question, 5 answer
    ...  data; of channel 0 nothing means the end of input; of 3 the JSON of `Exit`;
         of 4 and 5 a piece as in `aemesh.protocol.pieces`

There is no window: the reader of a slow stream does not read, TCP fills, and the job
waits in its write.  So a job that leaves its input lying has no answers either.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.pieces import Assembly, Message, cut
from aemesh.protocol.strictjson import decode_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXIT = 3
_QUESTION, _ANSWER = 4, 5
_LIMIT = limits.CHUNK_BYTES + 1


class Exit(msgspec.Struct, frozen=True):
    """How the job ended, as it is on the wire."""

    # What fits an exit status anywhere; our own JSON ends at 64 bits.
    code: Annotated[int, Meta(ge=-(2**31), lt=2**31)]
    reason: str = ""


def encode_chunk(chunk: Chunk) -> bytes:
    """Return one piece of input or output as a frame."""
    return encode_frame(bytes((chunk.channel.value,)) + chunk.data, limit=_LIMIT)


def encode_exit(exit_: JobExit) -> bytes:
    """Return the last frame of a stream."""
    body = msgspec.json.encode(Exit(code=exit_.code, reason=exit_.reason))
    return encode_frame(bytes((_EXIT,)) + body, limit=_LIMIT)


def encode_question(message: Message) -> Iterator[bytes]:
    """Yield a question of a job as frames."""
    return _encode_pieces(_QUESTION, message)


def encode_answer(message: Message) -> Iterator[bytes]:
    """Yield an answer to a job as frames."""
    return _encode_pieces(_ANSWER, message)


def _encode_pieces(channel: int, message: Message) -> Iterator[bytes]:
    for piece in cut(message):
        yield encode_frame(bytes((channel,)) + piece, limit=_LIMIT)


class Side(enum.Enum):
    """Whose stream it is that is read, and so which messages may come."""

    OUTSIDE = None  # a client's: none
    MASTER = _QUESTION
    AGENT = _ANSWER


class StreamReader:
    """Cuts chunks and the exit out of a stream; whole messages wait in `messages`."""

    def __init__(self, side: Side = Side.OUTSIDE) -> None:
        self.messages: deque[Message] = deque()
        self._side = side
        self._frames = FrameReader(limit=_LIMIT)
        self._assembly = Assembly()

    def receive_untrusted(self, data: bytes) -> list[Chunk | JobExit]:
        """Take bytes; return what they came to; raises `BadMessage`."""
        self._frames.receive_untrusted(data)
        found: list[Chunk | JobExit] = []
        while (frame := self._frames.next_untrusted()) is not None:
            if frame and frame[0] == self._side.value:
                message = self._assembly.receive_untrusted(frame[1:])
                if message is not None:
                    self.messages.append(message)
            else:
                found.append(_parse(frame))
        return found


def _parse(frame: bytes) -> Chunk | JobExit:
    if not frame or frame[0] > _EXIT:
        msg = "a frame of no channel of a job"
        raise BadMessage(msg)
    if frame[0] == _EXIT:
        exit_ = decode_untrusted(frame[1:], Exit)
        return JobExit(exit_.code, exit_.reason[:200])
    return Chunk(Channel(frame[0]), frame[1:])
