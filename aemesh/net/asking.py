"""Asks a master something over a connection of its own, and reads the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import (
    BadMessage,
    RefusedError,
    RequestFailedError,
    UnreachableError,
    quoted,
)
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

if TYPE_CHECKING:
    from aemesh.net.shake import Channel


async def ask_untrusted(channel: Channel, ask: wire.Ask) -> list[bytes]:
    """Return the lines of JSON that a master answers; the channel is closed then.

    Raises `RefusedError` if it does not tell, `RequestFailedError`, `BadMessage` or
    `UnreachableError`.
    """
    name = channel.peer.name
    try:
        with trio.fail_after(limits.ASK_AFTER):
            data = encode_frame(wire.encode(ask, n=1), limit=limits.HELLO_BYTES)
            await channel.stream.send_all(data)
            text = await _read(channel)
    except (trio.TooSlowError, trio.BrokenResourceError) as exc:
        msg = f"{name} does not answer"
        raise UnreachableError(msg, why=str(exc) or "it was too slow") from exc
    finally:
        await trio.aclose_forcefully(channel.connection.stream)
    return [line.encode() for line in text.split("\n") if line]


async def _read(channel: Channel) -> str:
    frames = FrameReader(limit=limits.FRAME_BYTES)
    frames.receive_untrusted(channel.leftover)
    pages: list[str] = []
    while True:
        while (frame := frames.next_untrusted()) is None:
            data = await channel.stream.receive_some(limits.CHUNK_BYTES)
            if not data:
                msg = "the answer ended before its last page"
                raise BadMessage(msg)
            frames.receive_untrusted(bytes(data))
        told = _page(frame, channel)
        pages.append(told.text)
        if sum(map(len, pages)) > limits.ANSWER_CHARS:
            msg = f"an answer of more than {limits.ANSWER_CHARS} characters"
            raise BadMessage(msg)
        if not told.more:
            return "".join(pages)


def _page(frame: bytes, channel: Channel) -> wire.Told:
    envelope = decode_untrusted(frame, wire.Envelope)
    if envelope.t == wire.NAMES[wire.Failed]:
        failed = convert_untrusted(envelope.b, wire.Failed)
        kind = RefusedError if failed.error == RefusedError.name else RequestFailedError
        msg = f"master {channel.peer.name} does not tell"
        raise kind(msg, why=quoted(failed.what))
    if envelope.t != wire.NAMES[wire.Told]:
        msg = f"expected an answer, got {quoted(envelope.t)}"
        raise BadMessage(msg)
    return convert_untrusted(envelope.b, wire.Told)
