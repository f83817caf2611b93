"""The stream of one job: its input and output as small tagged frames.

::

    u32  length of what follows, big endian
    u8   channel: 0 input, 1 output, 2 error output, 3 exit
    ...  data; of channel 0 nothing means the end of input; of 3 the JSON of `Exit`

There is no window: the reader of a slow stream does not read, TCP fills, and the job
waits in its write.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.strictjson import decode_untrusted

_EXIT = 3
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


class StreamReader:
    """Cuts chunks and the exit out of a stream."""

    def __init__(self) -> None:
        self._frames = FrameReader(limit=_LIMIT)

    def receive_untrusted(self, data: bytes) -> list[Chunk | JobExit]:
        """Take bytes; return what they came to; raises `BadMessage`."""
        self._frames.receive_untrusted(data)
        found: list[Chunk | JobExit] = []
        while (frame := self._frames.next_untrusted()) is not None:
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
