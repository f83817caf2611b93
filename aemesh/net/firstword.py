"""The first message on a stream says what it is for; bytes of the stream follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

if TYPE_CHECKING:
    from aemesh.net.shake import Channel

B = TypeVar("B", bound=wire.Body)


async def hear_first(channel: Channel, *kinds: type[B]) -> tuple[int, B, bytes]:
    """Return the number of the first message, the message, and what came behind it.

    Raises `BadMessage` if it is of none of these kinds, or if the stream ends before.
    """
    frames = FrameReader(limit=limits.HELLO_BYTES)
    frames.receive_untrusted(channel.leftover)
    wanted = {wire.NAMES[kind]: kind for kind in kinds}
    named = " or ".join(wanted)
    while (frame := frames.next_untrusted()) is None:
        data = await channel.stream.receive_some(limits.CHUNK_BYTES)
        if not data:
            msg = f"the stream ended before its {named}"
            raise BadMessage(msg)
        frames.receive_untrusted(bytes(data))
    envelope = decode_untrusted(frame, wire.Envelope)
    kind = wanted.get(envelope.t)
    if kind is None:
        msg = f"expected {named} on a stream"
        raise BadMessage(msg)
    return envelope.n, convert_untrusted(envelope.b, kind), frames.leftover()
