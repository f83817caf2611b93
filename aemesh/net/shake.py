"""A connection becomes a channel: preamble, TLS, HELLO, proofs, verdicts.

`connect` and `accept` are the two ends.  They open no nursery: it would wrap a
refusal into a group.  Every step has a deadline of `aemesh.limits`; what a person has
to decide has a longer one, and a sign of life meanwhile.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    KeyChangedError,
    RefusedError,
    UnreachableError,
    quoted,
)
from aemesh.model.trust import Decision, Mode, Peer, Reason, Verdict
from aemesh.net.doorman import Clock, Doorman, MakeGss
from aemesh.net.prove import prove
from aemesh.net.talk import Talk
from aemesh.net.tls import ALPN, Credentials, client_context, server_context
from aemesh.net.transport import Connection
from aemesh.net.wallclock import WallClock
from aemesh.policy.trust import wrong_clock
from aemesh.protocol.certificate import Leaf, leaf_untrusted
from aemesh.protocol.handshake import (
    Handshake,
    PeerKnown,
    Side,
)
from aemesh.protocol.hello import Meeting, Ourselves, Purpose
from aemesh.protocol.preamble import (
    HEADER_BYTES,
    REFUSAL_PREFIX,
    body_length_untrusted,
    chain_untrusted,
    encode_preamble,
    preamble_hash,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aemesh.model.key import KeyId

# How often a pending decision is asked for again: a person's yes on the other
# terminal is acted upon within this.
_ASK_AGAIN_AFTER = 0.2
_CLOSE_AFTER = 1.0

Tls = trio.SSLStream[trio.abc.Stream]


@dataclass(frozen=True, slots=True)
class Channel:
    """An authenticated, encrypted stream; both sides said ok."""

    stream: Tls
    connection: Connection
    peer: Peer
    purpose: Purpose
    leftover: bytes
    binding: bytes = b""  # what ties a signature to this channel
    dialled: bool = True  # by us


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaker:
    """What one node needs for any of its handshakes."""

    credentials: Credentials
    ours: Ourselves
    doorman: Doorman
    client: ssl.SSLContext  # made once: it is the same for every peer
    clock: Clock
    servers: dict[bytes, ssl.SSLContext] = field(default_factory=dict)
    gss: MakeGss | None = None  # in mode gss

    async def connect(
        self,
        connection: Connection,
        *,
        expected: KeyId | None,
        purpose: Purpose = Purpose.CONTROL,
    ) -> Channel:
        """Shake hands over a connection that we dialled.

        Raises `RefusedError`, `BadMessage` or `UnreachableError`; the connection is
        then closed.
        """
        preamble = encode_preamble(self.credentials.chain)
        prefixed = _Prefixed(connection.stream, preamble)
        stream = trio.SSLStream[trio.abc.Stream](
            prefixed, self.client, server_side=False
        )
        async with _closing_on_error(stream, connection, refusal=prefixed.refusal):
            await _tls(stream, connection)
            leaf = leaf_untrusted(_certificate(stream))
            self._check_kind(leaf)
            if self.ours.mode is not Mode.X509 and expected not in (None, leaf.key_id):
                raise _other(connection, leaf.key_id, expected)
            meeting = self._meeting(leaf, connection, preamble)
            return await self._converse(
                self._machine(Side.CLIENT, meeting, purpose),
                stream,
                connection,
                expected,
            )

    async def accept(self, connection: Connection) -> Channel:
        """Shake hands over a connection that came in; raises as `connect`."""
        async with _closing_on_error(connection.stream, connection):
            preamble, chain = await _read_preamble(connection)
            leaf = leaf_untrusted(chain[0])
            self._check_kind(leaf)
            refusal = self.doorman.admits(leaf.key_id, chain)
            if refusal is not None:
                code = refusal.reason.value.encode()
                await connection.stream.send_all(REFUSAL_PREFIX + code + b"\n")
                what = f"the key {leaf.key_id} is not let in"
                raise RefusedError(what, why=refusal.detail)
            context = self._server_untrusted(chain[0])
        stream = trio.SSLStream[trio.abc.Stream](
            connection.stream, context, server_side=True
        )
        async with _closing_on_error(stream, connection):
            await _tls(stream, connection)
            if _certificate(stream) != chain[0]:
                msg = "the TLS certificate is not the announced one"
                raise BadMessage(msg)
            meeting = self._meeting(leaf, connection, preamble)
            machine = self._machine(Side.SERVER, meeting, Purpose.CONTROL)
            return await self._converse(machine, stream, connection, None)

    def _check_kind(self, leaf: Leaf) -> None:
        """Raise `BadMessage` for a key that no node has, unless a CA vouches for it."""
        if leaf.node_key is None and self.ours.mode is not Mode.X509:
            msg = "expected an Ed25519 key"
            raise BadMessage(msg)

    def _server_untrusted(self, announced: bytes) -> ssl.SSLContext:
        """Return the context for who announces this certificate, a known one or new.

        Making one takes 2 ms, half of a handshake; it keeps nothing of a connection.
        """
        context = self.servers.pop(announced, None)
        if context is None:
            try:
                context = server_context(self.credentials, announced)
            except ssl.SSLError as exc:
                msg = "a certificate that OpenSSL cannot read"
                raise BadMessage(msg) from exc
        self.servers[announced] = context  # last, for the first one goes first
        if len(self.servers) > limits.SERVER_CONTEXTS:
            del self.servers[next(iter(self.servers))]
        return context

    def _meeting(self, leaf: Leaf, connection: Connection, preamble: bytes) -> Meeting:
        return Meeting(
            leaf=leaf,
            address=str(connection.remote),
            preamble_hash=preamble_hash(preamble),
            nonce=self.clock.nonce(),
            now=self.clock.now(),
        )

    def _machine(self, side: Side, meeting: Meeting, purpose: Purpose) -> Handshake:
        stream = purpose is Purpose.STREAM
        asks = self.doorman.proofs.asks(meeting.leaf.node_key)
        return Handshake(
            side=side,
            ours=self.ours,
            meeting=meeting,
            purpose=purpose,
            asks=frozenset() if stream else asks,
        )

    async def _converse(
        self,
        machine: Handshake,
        stream: Tls,
        connection: Connection,
        expected: KeyId | None,
    ) -> Channel:
        talk = Talk(machine, stream, told=self.doorman.heard)
        with _deadline(limits.HELLO_AFTER, connection, "HELLO"):
            await talk.say(machine.hello())
            known = await talk.hear_hello()
        purpose = _purpose(machine, known)
        with _deadline(limits.PROOF_AFTER, connection, "a proof"):
            await prove(
                talk,
                self.doorman.proofs,
                asks=known.asks,
                purpose=purpose,
                nonce=self.clock.nonce(),
                gss=self.gss,
            )
        with _deadline(limits.PENDING_AFTER, connection, "a decision"):
            await self._agree(talk, known, expected)
        # Proofs are for this once; whoever judges again goes by what was kept.
        peer = replace(talk.peer, token=None, code="")
        return Channel(
            stream=stream,
            connection=connection,
            peer=peer,
            purpose=purpose,
            leftover=machine.leftover(),
            binding=machine.binding,
            dialled=machine.side is Side.CLIENT,
        )

    async def _agree(
        self, talk: Talk, known: PeerKnown, expected: KeyId | None
    ) -> None:
        """Exchange verdicts until both are ok; a no on either side raises."""
        machine = talk.machine
        purpose = _purpose(machine, known)
        heard_at = said_at = trio.current_time()
        silence = limits.VERDICT_AFTER
        while not machine.established:
            verdict = wrong_clock(talk.peer, skew=known.skew) or self.doorman.judge(
                talk.peer, purpose=purpose, skew=known.skew, expected=expected
            )
            now = trio.current_time()
            last = machine.says_last_word(verdict)
            if last:
                verdict = self._committed(talk.peer, verdict)
            data = machine.decide(verdict)
            if not data and now - said_at >= limits.PENDING_EVERY:
                data = machine.repeat()
            if data:
                said_at = now
                await talk.say(data)
            if verdict.decision is Decision.NO and machine.said == verdict:
                raise _refusal(talk.peer, verdict)
            if last:
                return
            with trio.move_on_after(_ASK_AGAIN_AFTER):
                await talk.hear_verdict()
                heard_at = trio.current_time()
                silence = limits.PENDING_SILENCE_AFTER
            if trio.current_time() - heard_at > silence:
                why = f"nothing was heard for {silence:g} s while a verdict was due"
                msg = f"{talk.peer.name} is gone"
                raise UnreachableError(msg, why=why)
        assert machine.said is not None, "established by our word and the peer's"
        self.doorman.commit(talk.peer, machine.said)

    def _committed(self, peer: Peer, verdict: Verdict) -> Verdict:
        """Keep what an ok is worth keeping of; if that fails, the verdict is no."""
        try:
            self.doorman.commit(peer, verdict)
        except RefusedError as exc:
            changed = isinstance(exc, KeyChangedError)
            reason = Reason.KEY_CHANGED if changed else Reason.OWNED
            # Why is ours: it has paths of this machine.
            return Verdict(Decision.NO, reason, exc.what)
        return verdict


def shakers(
    ours: Ourselves, credentials: Credentials, *, gss: MakeGss | None = None
) -> Callable[[Doorman], Shaker]:
    """Return what makes the `Shaker` of one handshake of a node."""
    client = client_context(credentials)
    servers: dict[bytes, ssl.SSLContext] = {}

    def shaker(doorman: Doorman) -> Shaker:
        return Shaker(
            credentials=credentials,
            ours=ours,
            doorman=doorman,
            client=client,
            clock=WallClock(),
            servers=servers,
            gss=gss,
        )

    return shaker


class _Prefixed(trio.abc.Stream):
    """A stream whose first bytes go out in one piece with what is sent first.

    So the preamble shares the flight, and the segment, of the ClientHello.
    """

    def __init__(self, inner: trio.abc.Stream, prefix: bytes) -> None:
        self._inner = inner
        self._prefix = prefix
        self._first: bytes | None = None

    def refusal(self) -> str | None:
        """Return what was said in clear instead of TLS: a hint, and no more.

        Anybody on the way could have said it.
        """
        if self._first is None or not self._first.startswith(REFUSAL_PREFIX):
            return None
        word = self._first[len(REFUSAL_PREFIX) :].partition(b"\n")[0]
        return quoted(word.decode(errors="replace"))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        prefix, self._prefix = self._prefix, b""
        await self._inner.send_all(prefix + bytes(data) if prefix else data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        if self._first is None:
            self._first = bytes(data[:64])
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read_preamble(connection: Connection) -> tuple[bytes, tuple[bytes, ...]]:
    with _deadline(limits.PREAMBLE_AFTER, connection, "the preamble"):
        header = await _receive_exactly(connection.stream, HEADER_BYTES)
        body = await _receive_exactly(connection.stream, body_length_untrusted(header))
    return header + body, chain_untrusted(header, body)


async def _receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    # One byte too many would be missing from TLS.
    data = bytearray()
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        if not piece:
            msg = "the connection ended in the preamble"
            raise BadMessage(msg)
        data += piece
    return bytes(data)


async def _tls(stream: Tls, connection: Connection) -> None:
    try:
        with _deadline(limits.TLS_AFTER, connection, "TLS"):
            await stream.do_handshake()
    except UnreachableError:
        # Or `aclose` would go on with the handshake, for a polite good-bye.
        await trio.aclose_forcefully(connection.stream)
        raise
    if stream.selected_alpn_protocol() != ALPN:
        msg = "the peer does not speak aemesh/1 (ALPN)"
        raise BadMessage(msg)


def _certificate(stream: Tls) -> bytes:
    certificate: bytes | None = stream.getpeercert(binary_form=True)
    if certificate is None:
        msg = "the peer showed no certificate"
        raise BadMessage(msg)
    return certificate


def _purpose(machine: Handshake, known: PeerKnown) -> Purpose:
    # Whoever dials says what the connection is for.
    return known.purpose if machine.side is Side.SERVER else machine.purpose


def _other(connection: Connection, key_id: KeyId, expected: KeyId | None) -> Exception:
    return RefusedError(
        f"{connection.remote} is not who was meant",
        why=f"the key there is {key_id}, expected {expected}",
    )


def _refusal(peer: Peer, verdict: Verdict) -> RefusedError:
    kind = KeyChangedError if verdict.reason is Reason.KEY_CHANGED else RefusedError
    why = f"{verdict.reason.value}, {verdict.detail}"
    return kind(f"{peer.role.value} {peer.name} is refused", why=why)


@contextmanager
def _deadline(seconds: float, connection: Connection, what: str) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        msg = f"{connection.remote} was too slow"
        raise UnreachableError(
            msg,
            why=f"{what} did not come within {seconds:g} s",
        ) from None


@asynccontextmanager
async def _closing_on_error(
    stream: trio.abc.Stream,
    connection: Connection,
    *,
    refusal: Callable[[], str | None] = lambda: None,
) -> AsyncIterator[None]:
    """Close on the way out of an error, and translate what trio and ssl raise."""
    try:
        yield
    except AemeshError:
        # What was said last (a no) shall arrive; a silent peer shall not hold us.
        with trio.move_on_after(_CLOSE_AFTER, shield=True):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.aclose()
        await trio.aclose_forcefully(connection.stream)
        raise
    except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as exc:
        await trio.aclose_forcefully(connection.stream)
        why = str(exc.__cause__ or exc) or "the connection broke"
        if (word := refusal()) is not None:
            why = f"it seems to refuse us: {word}"
        msg = f"no channel to {connection.remote}"
        raise UnreachableError(msg, why=why) from exc
    except BaseException:
        await trio.aclose_forcefully(connection.stream)
        raise
