"""Carrying a connection over another one, byte for byte.

What an engine's processes say to each other is theirs, and encrypted by them from end
to end.  So a forwarded connection is bare: its two ends prove their keys to each other
as any two nodes do, and then end TLS on both sides.  A second encryption around the
first would halve what gets through, and would hide nothing on the part of the way that
the engine's own connection goes (decision 0025).
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage

if TYPE_CHECKING:
    from aemesh.net.shake import Channel

# On, for zero seconds: closing sends a reset, and nothing that still waits.
_RESET = struct.pack("ii", 1, 0)
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(slots=True)
class Meter:
    """What was carried."""

    bytes: int = 0
    connections: int = 0
    open: int = 0


Stream = trio.abc.Stream


async def bared(channel: Channel, *, early: bytes = b"") -> tuple[Stream, bytes]:
    """End TLS on a channel; return the stream below it, and what came on that already.

    The other end does the same.  `early` is what was read within TLS and not used:
    there must be nothing.
    """
    if early:
        msg = "something was said within TLS after it was to end"
        raise BadMessage(msg)
    with trio.fail_after(limits.HELLO_AFTER):
        _, first = await channel.stream.unwrap()
    return channel.connection.stream, bytes(first)


async def carry(near: Stream, far: Stream, meter: Meter, *, first: bytes = b"") -> None:
    """Carry bytes both ways until both directions have ended; then close both.

    `first` came from `far` already.  The end of one direction is passed on and leaves
    the other one open; when one stream breaks, the other is reset.  Nothing is read
    that the other side does not take.
    """
    meter.connections += 1
    meter.open += 1
    ends = 0  # of directions, in order
    try:
        async with trio.open_nursery() as nursery:

            async def one_way(source: Stream, sink: Stream, early: bytes) -> None:
                nonlocal ends
                try:
                    await _one_way(source, sink, early, meter)
                    ends += 1
                except _BROKEN:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(one_way, near, far, b"")
            nursery.start_soon(one_way, far, near, first)
    finally:
        meter.open -= 1
        with trio.CancelScope(shield=True):  # neither waits for anything
            for stream in (near, far):
                await (reset if ends < 2 else trio.aclose_forcefully)(stream)


async def _one_way(source: Stream, sink: Stream, data: bytes, meter: Meter) -> None:
    piece: bytes | bytearray = data
    while piece or (piece := await source.receive_some(limits.FORWARD_CHUNK_BYTES)):
        await sink.send_all(piece)
        meter.bytes += len(piece)
        piece = b""
    if isinstance(sink, trio.abc.HalfCloseableStream):
        await sink.send_eof()


async def reset(stream: Stream) -> None:
    """Close a stream so that the other end sees it broken, not ended."""
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):  # closed already
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    await trio.aclose_forcefully(stream)
