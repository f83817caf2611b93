"""The handshake inside TLS: HELLO both ways, proofs, then verdicts, the client's first.

TLS has proved the peer's key before this machine is made.  A TLS 1.3 client
"succeeds" before the server has refused it, so nothing may be commanded before the
verdicts: both sides say ok, pending (a person decides) or no, and may say it again
while it is pending.  The server has the last word: it says ok only after the client
did, so whoever has heard or said the server's ok may go on.

Between the HELLOs and the first verdict stand proofs: a code that both show, a join
token, Kerberos.  The machine lets their messages through and bounds them; what they
prove is told to it by `learn`.

Events out: `PeerKnown` once, `ProofHeard` for each step of a proof, `VerdictHeard`
each time, `Established` or a raised `RefusedError`.  After `Established` the bytes
that came too early are in `leftover`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from aemesh import limits
from aemesh.errors import BadMessage, BugError, RefusedError, quoted
from aemesh.model.trust import Decision, Peer, Proof, Reason, TokenProof, Verdict
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.hello import (
    Meeting,
    Ourselves,
    Purpose,
    encode_hello,
    enum_untrusted,
    hello_untrusted,
)
from aemesh.protocol.joining import binding
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

ProofBody = wire.Pair | wire.Join | wire.Gss
_PROOFS: dict[str, type[ProofBody]] = {
    "pair": wire.Pair,
    "join": wire.Join,
    "gss": wire.Gss,
}


class Side(enum.Enum):
    """Which end of the TLS connection we are; independent of the roles."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class PeerKnown:
    """The peer's HELLO agrees with TLS; `skew` is its clock minus ours, in seconds."""

    peer: Peer
    skew: float
    purpose: Purpose
    asks: frozenset[Proof] = frozenset()


@dataclass(frozen=True, slots=True)
class ProofHeard:
    """A step of a proof came."""

    body: ProofBody


@dataclass(frozen=True, slots=True)
class VerdictHeard:
    """The peer said what it thinks of us."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Established:
    """Both said ok: commands may follow."""


HandshakeEvent = PeerKnown | ProofHeard | VerdictHeard | Established


@dataclass(slots=True, kw_only=True)
class Handshake:
    """One side of the handshake."""

    side: Side
    ours: Ourselves
    meeting: Meeting
    purpose: Purpose = Purpose.CONTROL
    asks: frozenset[Proof] = frozenset()
    peer: Peer | None = None
    peer_nonce: bytes = b""
    said: Verdict | None = None
    heard: Verdict | None = None
    _heard_count: int = 0
    _proof_count: int = 0
    _frames: FrameReader = field(
        default_factory=lambda: FrameReader(limit=limits.HELLO_BYTES)
    )

    @property
    def established(self) -> bool:
        """Whether both sides have said ok."""
        return _is_ok(self.said) and _is_ok(self.heard)

    @property
    def binding(self) -> bytes:
        """What ties a proof to this connection; see `aemesh.protocol.joining`."""
        ours = (self.ours.tls_key_id, self.meeting.nonce)
        theirs = (self.meeting.leaf.key_id, self.peer_nonce)
        client, server = (ours, theirs) if self.side is Side.CLIENT else (theirs, ours)
        return binding(
            fp_client=client[0],
            fp_server=server[0],
            nonce_client=client[1],
            nonce_server=server[1],
        )

    def hello(self) -> bytes:
        """Return our HELLO; either side sends it as soon as TLS is up."""
        body = encode_hello(
            self.ours, self.meeting, purpose=self.purpose, asks=self.asks
        )
        return encode_frame(wire.encode(body), limit=limits.HELLO_BYTES)

    def prove(self, body: ProofBody) -> bytes:
        """Return one step of a proof of ours."""
        return encode_frame(wire.encode(body), limit=limits.HELLO_BYTES)

    def learn(
        self,
        *,
        code: str = "",
        token: TokenProof | None = None,
        principal: str = "",
    ) -> Peer:
        """Add what a proof came to; return the peer as it is known now."""
        assert self.peer is not None, "proofs come after HELLO"
        self.peer = replace(
            self.peer,
            code=code or self.peer.code,
            token=token or self.peer.token,
            principal=principal or self.peer.principal,
        )
        return self.peer

    def receive_untrusted(self, data: bytes) -> list[HandshakeEvent]:
        """Take bytes from the peer; return what they came to.

        Raises `BadMessage` on what the protocol forbids, and `RefusedError` when
        the peer says no.
        """
        self._frames.receive_untrusted(data)
        events: list[HandshakeEvent] = []
        while not self.established:
            frame = self._frames.next_untrusted()
            if frame is None:
                break
            events += self._step(frame)
        self.check()
        return events

    def decide(self, verdict: Verdict) -> bytes:
        """Take our verdict, new or changed; return what must be sent now.

        After a no has been sent the caller closes.
        """
        if self.peer is None:
            msg = "we judged before the peer's HELLO had come"
            raise BugError(msg)
        return self._due(verdict)

    def refuse(self, verdict: Verdict) -> bytes:
        """Return a no that is said in the midst of the proofs, whoever is first."""
        self.said = verdict
        return _encode_verdict(verdict)

    def says_last_word(self, verdict: Verdict) -> bool:
        """Whether this verdict of ours would establish the channel when it is said."""
        last = self.side is Side.SERVER and _is_ok(self.heard)
        return last and _is_ok(verdict) and not self.established

    def repeat(self) -> bytes:
        """Return our last verdict again: the sign of life while one is pending."""
        return b"" if self.said is None else _encode_verdict(self.said)

    def _due(self, wanted: Verdict) -> bytes:
        """Return the verdict that we want to say and may say now, if it is new."""
        if self.established:
            return b""
        if self.side is Side.SERVER:
            if self.heard is None:
                return b""  # the client judges first
            if wanted.decision is Decision.OK and not _is_ok(self.heard):
                wanted = Verdict(Decision.PENDING, Reason.ACCEPTED, "it is your turn")
        if wanted == self.said:
            return b""
        self.said = wanted
        return _encode_verdict(wanted)

    def leftover(self) -> bytes:
        """Return the bytes that came behind the last verdict."""
        return self._frames.leftover()

    def check(self) -> None:
        """Assert what always holds."""
        assert self.heard is None or self.peer is not None
        if self.side is Side.SERVER and _is_ok(self.said):
            assert _is_ok(self.heard), "the server says ok last"

    def _step(self, frame: bytes) -> list[HandshakeEvent]:
        envelope = decode_untrusted(frame, wire.Envelope)
        if self.peer is None and envelope.t == "hello":
            return [self._on_hello(convert_untrusted(envelope.b, wire.Hello))]
        if self.peer is not None and envelope.t == "verdict":
            return self._on_verdict(convert_untrusted(envelope.b, wire.VerdictBody))
        if self.peer is not None and self.heard is None and envelope.t in _PROOFS:
            return [self._on_proof(envelope)]
        expected = "hello" if self.peer is None else "verdict"
        msg = f"expected {expected}, got {quoted(envelope.t)}"
        raise BadMessage(msg)

    def _on_hello(self, hello: wire.Hello) -> PeerKnown:
        heard = hello_untrusted(hello, self.ours, self.meeting)
        self.peer, self.peer_nonce = heard.peer, heard.nonce
        return PeerKnown(heard.peer, heard.skew, heard.purpose, heard.asks)

    def _on_proof(self, envelope: wire.Envelope) -> ProofHeard:
        self._proof_count += 1
        if self._proof_count > limits.PROOFS:
            msg = f"more than {limits.PROOFS} steps of proofs in one handshake"
            raise BadMessage(msg)
        return ProofHeard(convert_untrusted(envelope.b, _PROOFS[envelope.t]))

    def _on_verdict(self, body: wire.VerdictBody) -> list[HandshakeEvent]:
        self._heard_count += 1
        if self._heard_count > limits.VERDICTS:
            msg = f"more than {limits.VERDICTS} verdicts in one handshake"
            raise BadMessage(msg)
        verdict = Verdict(
            enum_untrusted(Decision, body.decision),
            enum_untrusted(Reason, body.reason),
            body.detail,
        )
        if self.side is Side.CLIENT and _is_ok(verdict) and not _is_ok(self.said):
            msg = "the server said ok before the client did"
            raise BadMessage(msg)
        self.heard = verdict
        if verdict.decision is Decision.NO:
            raise refused_by(self.peer, verdict)
        heard = VerdictHeard(verdict)
        return [heard, Established()] if self.established else [heard]


def refused_by(peer: Peer | None, verdict: Verdict) -> RefusedError:
    """Return the error for a peer's no."""
    name = "the peer" if peer is None else str(peer.name)
    why = verdict.reason.value
    if verdict.detail:
        why += f", {quoted(verdict.detail)}"
    return RefusedError(f"{name} refused us", why=why)


def _encode_verdict(verdict: Verdict) -> bytes:
    body = wire.VerdictBody(
        decision=verdict.decision.value,
        reason=verdict.reason.value,
        detail=verdict.detail[:1000],
    )
    return encode_frame(wire.encode(body), limit=limits.HELLO_BYTES)


def _is_ok(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.decision is Decision.OK
