"""Frames: how messages are cut out of a stream of bytes.

::

    u32  length of what follows, big endian, at most `limit`
    ...  that many bytes

A longer frame is refused when its header is read, before anything is allocated.
"""

from __future__ import annotations

from aemesh.errors import BadMessage

HEADER_BYTES = 4


def encode_frame(body: bytes, *, limit: int) -> bytes:
    """Return `body` as a frame; raises `ValueError` beyond `limit` bytes."""
    if len(body) > limit:
        msg = f"a frame of {len(body)} bytes; the limit is {limit}"
        raise ValueError(msg)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameReader:
    """Cuts frames out of bytes that come in pieces of any size."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def receive_untrusted(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._buffer += data

    def next_untrusted(self) -> bytes | None:
        """Return the next whole frame, or None; raises `BadMessage` on a huge one."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
        if length > self.limit:
            msg = f"a frame of {length} bytes; the limit is {self.limit}"
            raise BadMessage(msg)
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        return frame

    def leftover(self) -> bytes:
        """Return and forget what no frame was cut of, for whoever reads on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def __repr__(self) -> str:
        return f"<FrameReader {len(self._buffer)} bytes of {self.limit} waiting>"
