"""The conversation inside TLS until both sides have said ok: one message at a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from aemesh import limits
from aemesh.errors import BadMessage, PeerError, RefusedError
from aemesh.protocol.handshake import PeerKnown, ProofHeard, VerdictHeard

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from aemesh.model.trust import Peer, Verdict
    from aemesh.protocol.handshake import Handshake, HandshakeEvent, ProofBody

B = TypeVar("B", bound="ProofBody")


class Talk:
    """A handshake and the stream it goes over; events wait here for their turn."""

    def __init__(
        self,
        machine: Handshake,
        stream: trio.SSLStream[trio.abc.Stream],
        *,
        told: Callable[[Peer, Verdict], None],
    ) -> None:
        self.machine = machine
        self._stream = stream
        self._told = told  # each verdict of the peer, a no as well
        self._events: deque[HandshakeEvent] = deque()

    @property
    def peer(self) -> Peer:
        """The peer, with what has been proved of it so far."""
        assert self.machine.peer is not None, "HELLO was heard"
        return self.machine.peer

    async def say(self, data: bytes) -> None:
        """Send what the machine made."""
        await self._stream.send_all(data)

    async def prove(self, body: ProofBody) -> None:
        """Send one step of a proof."""
        await self.say(self.machine.prove(body))

    async def refuse(self, verdict: Verdict) -> None:
        """Say no in the midst of the proofs."""
        await self.say(self.machine.refuse(verdict))

    async def hear(self) -> HandshakeEvent:
        """Return the next event; raises `BadMessage`, `PeerError`, `RefusedError`."""
        while not self._events:
            data = await self._stream.receive_some(limits.CHUNK_BYTES)
            if not data:
                msg = "the peer closed the connection in the handshake"
                raise PeerError(msg)
            self._take_untrusted(bytes(data))
        event = self._events.popleft()
        if isinstance(event, VerdictHeard):
            self._told(self.peer, event.verdict)
        return event

    def _take_untrusted(self, data: bytes) -> None:
        try:
            self._events.extend(self.machine.receive_untrusted(data))
        except RefusedError:
            if self.machine.heard is not None:
                self._told(self.peer, self.machine.heard)
            raise

    async def hear_hello(self) -> PeerKnown:
        """Return the peer as its HELLO has it."""
        event = await self.hear()
        assert isinstance(event, PeerKnown), "the machine lets nothing else be first"
        return event

    async def hear_verdict(self) -> None:
        """Hear what comes after the proofs; a step of one is a breach there."""
        if isinstance(await self.hear(), ProofHeard):
            msg = "expected a verdict, got a proof that nobody asked for"
            raise BadMessage(msg)

    async def hear_proof(self, kind: type[B]) -> B:
        """Return the next step of a proof, which must be of this kind."""
        event = await self.hear()
        if isinstance(event, ProofHeard) and isinstance(event.body, kind):
            return event.body
        msg = f"expected {kind.__name__.lower()} before the verdicts"
        raise BadMessage(msg)
