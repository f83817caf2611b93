"""The session on an established link: requests, answers, heartbeats.

Every byte of the peer shows that it lives: a large message on a slow line takes
longer than a beat may be late.  A `Beat` is sent when we had nothing else to say for
`PING_EVERY`.  Silence makes the peer suspect, then lost; the times are in
`aemesh.limits`.  Unknown types are answered, not fatal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, quoted
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pulse(enum.Enum):
    """How the peer's heartbeat looks."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Request:
    """The peer asks; answer with `Session.answer(number, …)`."""

    number: int
    body: wire.Body


@dataclass(frozen=True, slots=True)
class Notice:
    """The peer tells something and expects no answer."""

    body: wire.Body


@dataclass(frozen=True, slots=True)
class Answer:
    """The peer answers our request `number`."""

    number: int
    body: wire.Body


SessionEvent = Request | Notice | Answer


class Session:
    """One side of an established link."""

    def __init__(self, *, now: float, lost_after: float = limits.LOST_AFTER) -> None:
        self._lost_after = lost_after
        self.pulse = Pulse.ALIVE
        self._frames = FrameReader(limit=limits.FRAME_BYTES)
        self._heard_at = now
        self._spoke_at = now
        self._next = 1
        self._open: set[int] = set()
        self._unsent = bytearray()

    @property
    def heard_at(self) -> float:
        """When the last bytes of the peer came."""
        return self._heard_at

    def __repr__(self) -> str:
        return f"<Session {self.pulse.value}, {len(self._open)} requests open>"

    def receive_untrusted(self, data: bytes, now: float) -> Iterator[SessionEvent]:
        """Take bytes from the peer and yield what they say; raises `BadMessage`.

        `unsent` may hold something afterwards.
        """
        self._frames.receive_untrusted(data)
        if data:
            self._heard_at = now
            self.pulse = Pulse.ALIVE
        while (frame := self._frames.next_untrusted()) is not None:
            event = self._step(frame)
            if event is not None:
                yield event

    def request(self, body: wire.Body, now: float) -> tuple[int, bytes]:
        """Return the number under which the answer will come, and what to send."""
        number = self._next
        self._next += 1
        self._open.add(number)
        return number, self._encode(body, now, n=number)

    def notice(self, body: wire.Body, now: float) -> bytes:
        """Return what to send to tell something without an answer."""
        return self._encode(body, now)

    def answer(self, number: int, body: wire.Body, now: float) -> bytes:
        """Return what to send to answer the peer's request."""
        return self._encode(body, now, re=number)

    def tick(self, now: float) -> Pulse:
        """Judge the peer's silence; a beat may be in `unsent` afterwards."""
        # The very sums of `wake_at`: a difference may round the other way, and then
        # who sleeps until `wake_at` would wake for nothing, without end.
        if now >= self._heard_at + self._lost_after:
            self.pulse = Pulse.LOST
        elif now >= self._heard_at + limits.SUSPECT_AFTER:
            self.pulse = Pulse.SUSPECT
        if now >= self._spoke_at + limits.PING_EVERY:
            self._queue(self._encode(wire.Beat(), now))
        return self.pulse

    def wake_at(self) -> float:
        """Return when `tick` has something to do next."""
        alive = self.pulse is Pulse.ALIVE
        silent_after = limits.SUSPECT_AFTER if alive else self._lost_after
        return min(self._spoke_at + limits.PING_EVERY, self._heard_at + silent_after)

    def unsent(self) -> bytes:
        """Return and forget what the machine itself wants to send."""
        data = bytes(self._unsent)
        self._unsent.clear()
        return data

    def check(self) -> None:
        """Assert what always holds."""
        assert all(0 < number < self._next for number in self._open)
        assert len(self._unsent) <= limits.UNSENT_BYTES

    def _step(self, frame: bytes) -> SessionEvent | None:
        envelope = decode_untrusted(frame, wire.Envelope)
        kind = wire.TYPES.get(envelope.t)
        if envelope.re:
            return self._on_answer(envelope, kind)
        if kind is None:
            unsupported = wire.Unsupported(what=envelope.t)
            self._queue(self._encode(unsupported, self._heard_at, re=envelope.n))
            return None
        if kind in (wire.Beat, wire.VerdictBody):  # a verdict repeated once too often
            return None
        body = convert_untrusted(envelope.b, kind)
        return Request(envelope.n, body) if envelope.n else Notice(body)

    def _on_answer(
        self, envelope: wire.Envelope, kind: type[wire.Body] | None
    ) -> Answer:
        if envelope.re not in self._open:
            msg = f"an answer {quoted(envelope.t)} to no question of ours"
            raise BadMessage(msg)
        self._open.discard(envelope.re)
        if kind is None:
            what = f"an answer of a type that we do not know, {quoted(envelope.t)}"
            return Answer(envelope.re, wire.Failed(error="peer/bad-message", what=what))
        return Answer(envelope.re, convert_untrusted(envelope.b, kind))

    def _queue(self, data: bytes) -> None:
        if len(self._unsent) + len(data) <= limits.UNSENT_BYTES:
            self._unsent += data

    def _encode(self, body: wire.Body, now: float, *, n: int = 0, re: int = 0) -> bytes:
        self._spoke_at = now
        data = wire.encode(body, n=n, re=re)
        return encode_frame(data, limit=limits.FRAME_BYTES)
