"""The handshake inside TLS: HELLO both ways, then verdicts, the client's first.

TLS has proved the peer's key before this machine is made.  A TLS 1.3 client
"succeeds" before the server has refused it, so nothing may be commanded before the
verdicts: both sides say ok, pending (a person decides) or no, and may say it again
while it is pending.  The server has the last word: it says ok only after the client
did, so whoever has heard or said the server's ok may go on.

Events out: `PeerKnown` once, `VerdictHeard` each time, `Established` or a raised
`RefusedError`.  After `Established` the bytes that came too early are in `leftover`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeVar

from aemesh import limits
from aemesh.errors import BadMessage, BugError, RefusedError, quoted
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import Decision, Mode, Peer, Reason, Role, Verdict
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

VERSION = 1
NONCE_BYTES = 16
E = TypeVar("E", bound=enum.Enum)


class Side(enum.Enum):
    """Which end of the TLS connection we are; independent of the roles."""

    CLIENT = "client"
    SERVER = "server"


class Purpose(enum.Enum):
    """What a connection is for: the link of two nodes, or one job's stream."""

    CONTROL = "control"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class PeerKnown:
    """The peer's HELLO agrees with TLS; `skew` is its clock minus ours, in seconds."""

    peer: Peer
    skew: float
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class VerdictHeard:
    """The peer said what it thinks of us."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Established:
    """Both said ok: commands may follow."""


HandshakeEvent = PeerKnown | VerdictHeard | Established


@dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """What we say of ourselves in HELLO."""

    role: Role
    name: NodeName
    key_id: KeyId
    mode: Mode
    features: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Handshake:
    """One side of the handshake; `now` is seconds since 1970, `nonce` 16 bytes."""

    side: Side
    ours: Ourselves
    peer_key: PublicKey
    peer_address: str
    preamble_hash: str
    nonce: bytes
    now: float
    purpose: Purpose = Purpose.CONTROL
    peer: Peer | None = None
    peer_nonce: bytes = b""
    said: Verdict | None = None
    heard: Verdict | None = None
    _heard_count: int = 0
    _frames: FrameReader = field(
        default_factory=lambda: FrameReader(limit=limits.HELLO_BYTES)
    )

    @property
    def established(self) -> bool:
        """Whether both sides have said ok."""
        return _is_ok(self.said) and _is_ok(self.heard)

    def hello(self) -> bytes:
        """Return our HELLO; either side sends it as soon as TLS is up."""
        body = wire.Hello(
            v=VERSION,
            role=self.ours.role.value,
            name=self.ours.name,
            mode=self.ours.mode.value,
            me=str(self.ours.key_id),
            you=str(self.peer_key.key_id),
            pre=self.preamble_hash,
            nonce=self.nonce.hex(),
            now=self.now,
            purpose=self.purpose.value,
            feat=self.ours.features,
        )
        return encode_frame(wire.encode(body), limit=limits.HELLO_BYTES)

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
        expected = "hello" if self.peer is None else "verdict"
        msg = f"expected {expected}, got {quoted(envelope.t)}"
        raise BadMessage(msg)

    def _on_hello(self, hello: wire.Hello) -> PeerKnown:
        if hello.v != VERSION:
            msg = f"peer speaks version {hello.v}, we speak {VERSION}"
            raise BadMessage(msg)
        role = _enum_untrusted(Role, hello.role)
        mode = _enum_untrusted(Mode, hello.mode)
        purpose = _enum_untrusted(Purpose, hello.purpose)
        self._compare("its own key", hello.me, str(self.peer_key.key_id))
        self._compare("our key", hello.you, str(self.ours.key_id))
        if hello.pre != self.preamble_hash:
            msg = "the preamble was altered on the way"
            raise BadMessage(msg)
        if self.peer_key.key_id == self.ours.key_id:
            msg = "the peer has our own key: a cloned state directory"
            raise BadMessage(msg)
        if role is not self.ours.role.other:
            msg = f"a {self.ours.role.value} talks to a {self.ours.role.other.value},"
            msg += f" the peer is a {role.value}"
            raise BadMessage(msg)
        self.peer_nonce = _nonce_untrusted(hello.nonce)
        self.peer = Peer(
            role=role,
            name=node_name_untrusted(hello.name),
            key=self.peer_key,
            mode=mode,
            address=self.peer_address,
        )
        return PeerKnown(self.peer, skew=hello.now - self.now, purpose=purpose)

    def _on_verdict(self, body: wire.VerdictBody) -> list[HandshakeEvent]:
        self._heard_count += 1
        if self._heard_count > limits.VERDICTS:
            msg = f"more than {limits.VERDICTS} verdicts in one handshake"
            raise BadMessage(msg)
        verdict = Verdict(
            _enum_untrusted(Decision, body.decision),
            _enum_untrusted(Reason, body.reason),
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

    def _compare(self, what: str, said: str, proved: str) -> None:
        if said != proved:
            msg = f"HELLO says that {what} is {quoted(said)}; TLS proved {proved}"
            raise BadMessage(msg)


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


def _nonce_untrusted(text: str) -> bytes:
    # `bytes.fromhex` passes over blanks: what is left of 32 characters may be less.
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if len(nonce) != NONCE_BYTES:
        msg = f"expected {NONCE_BYTES} bytes of hex as nonce, got {quoted(text)}"
        raise BadMessage(msg)
    return nonce


def _enum_untrusted(kind: type[E], text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        choices = ", ".join(str(e.value) for e in kind)
        msg = f"unknown {kind.__name__.lower()} {quoted(text)}; known: {choices}"
        raise BadMessage(msg) from None
