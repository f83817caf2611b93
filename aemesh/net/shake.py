"""A connection becomes a channel: preamble, TLS, HELLO, verdicts.

`connect` and `accept` are the two ends.  They open no nursery: it would wrap a
refusal into a group.  Every step has a deadline of `aemesh.limits`; what a person has
to decide has a longer one, and a sign of life meanwhile.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    KeyChangedError,
    PeerError,
    RefusedError,
    UnreachableError,
)
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.net.doorman import Clock, Doorman
from aemesh.net.tls import ALPN, Credentials, client_context, server_context
from aemesh.net.transport import Connection
from aemesh.net.wallclock import WallClock
from aemesh.protocol.certificate import identity_untrusted
from aemesh.protocol.handshake import (
    Established,
    Handshake,
    HandshakeEvent,
    Ourselves,
    PeerKnown,
    Purpose,
    Side,
    VerdictHeard,
)
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

    from aemesh.model.key import KeyId, PublicKey

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaker:
    """What one node needs for any of its handshakes."""

    credentials: Credentials
    ours: Ourselves
    doorman: Doorman
    client: ssl.SSLContext  # made once: it is the same for every peer
    clock: Clock
    servers: dict[bytes, ssl.SSLContext] = field(default_factory=dict)

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
        preamble = encode_preamble((self.credentials.certificate,))
        stream = trio.SSLStream[trio.abc.Stream](
            _Prefixed(connection.stream, preamble), self.client, server_side=False
        )
        async with _closing_on_error(stream, connection):
            await _tls(stream, connection)
            key = identity_untrusted(_certificate(stream))
            if expected not in (None, key.key_id):
                msg = f"{connection.remote} is not who was meant"
                raise RefusedError(
                    msg,
                    why=f"the key there is {key.key_id}, expected {expected}",
                )
            machine = self._machine(Side.CLIENT, key, connection, preamble, purpose)
            return await self._converse(machine, stream, connection, expected)

    async def accept(self, connection: Connection) -> Channel:
        """Shake hands over a connection that came in; raises as `connect`."""
        async with _closing_on_error(connection.stream, connection):
            preamble, chain = await _read_preamble(connection)
            key = identity_untrusted(chain[0])
            if not self.doorman.admits(key):
                await connection.stream.send_all(REFUSAL_PREFIX + b"key\n")
                what = f"the key {key.key_id} is not let in"
                raise RefusedError(what)
            context = self._server_untrusted(chain[0])
        stream = trio.SSLStream[trio.abc.Stream](
            connection.stream, context, server_side=True
        )
        async with _closing_on_error(stream, connection):
            await _tls(stream, connection)
            if _certificate(stream) != chain[0]:
                msg = "the TLS certificate is not the announced one"
                raise BadMessage(msg)
            machine = self._machine(
                Side.SERVER, key, connection, preamble, Purpose.CONTROL
            )
            return await self._converse(machine, stream, connection, None)

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

    def _machine(
        self,
        side: Side,
        key: PublicKey,
        connection: Connection,
        preamble: bytes,
        purpose: Purpose,
    ) -> Handshake:
        return Handshake(
            side=side,
            ours=self.ours,
            peer_key=key,
            peer_address=str(connection.remote),
            preamble_hash=preamble_hash(preamble),
            nonce=self.clock.nonce(),
            now=self.clock.now(),
            purpose=purpose,
        )

    async def _converse(
        self,
        machine: Handshake,
        stream: Tls,
        connection: Connection,
        expected: KeyId | None,
    ) -> Channel:
        with _deadline(limits.HELLO_AFTER, connection, "HELLO"):
            await stream.send_all(machine.hello())
            known = await _wait_hello(machine, stream)
        with _deadline(limits.PENDING_AFTER, connection, "a decision"):
            await self._agree(machine, stream, known, expected)
        purpose = _purpose(machine, known)
        return Channel(stream, connection, known.peer, purpose, machine.leftover())

    async def _agree(
        self,
        machine: Handshake,
        stream: Tls,
        known: PeerKnown,
        expected: KeyId | None,
    ) -> None:
        """Exchange verdicts until both are ok; a no on either side raises."""
        purpose = _purpose(machine, known)
        heard_at = said_at = trio.current_time()
        silence = limits.VERDICT_AFTER
        while not machine.established:
            verdict = self.doorman.judge(
                known.peer, purpose=purpose, skew=known.skew, expected=expected
            )
            now = trio.current_time()
            last = machine.says_last_word(verdict)
            if last:
                verdict = self._committed(known.peer, verdict)
            data = machine.decide(verdict)
            if not data and now - said_at >= limits.PENDING_EVERY:
                data = machine.repeat()
            if data:
                said_at = now
                await stream.send_all(data)
            if verdict.decision is Decision.NO and machine.said == verdict:
                raise _refusal(known.peer, verdict)
            if last:
                return
            with trio.move_on_after(_ASK_AGAIN_AFTER):
                events = self._hear(machine, known.peer, await _receive(stream))
                if events:  # half a message, and that for ever, is silence
                    heard_at = trio.current_time()
                    silence = limits.PENDING_SILENCE_AFTER
                if Established() in events:
                    self.doorman.commit(known.peer, verdict)
            if trio.current_time() - heard_at > silence:
                why = f"nothing was heard for {silence:g} s while a verdict was due"
                msg = f"{known.peer.name} is gone"
                raise UnreachableError(msg, why=why)

    def _hear(
        self, machine: Handshake, peer: Peer, data: bytes
    ) -> list[HandshakeEvent]:
        """Take what the peer says; the doorman is told each verdict, a no as well."""
        try:
            events = machine.receive_untrusted(data)
        except RefusedError:
            if machine.heard is not None:
                self.doorman.heard(peer, machine.heard)
            raise
        for event in events:
            if isinstance(event, VerdictHeard):
                self.doorman.heard(peer, event.verdict)
        return events

    def _committed(self, peer: Peer, verdict: Verdict) -> Verdict:
        """Keep what an ok is worth keeping of; if that fails, the verdict is no."""
        try:
            self.doorman.commit(peer, verdict)
        except RefusedError as exc:
            changed = isinstance(exc, KeyChangedError)
            reason = Reason.KEY_CHANGED if changed else Reason.OWNED
            return Verdict(Decision.NO, reason, str(exc))
        return verdict


def shakers(ours: Ourselves, credentials: Credentials) -> Callable[[Doorman], Shaker]:
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
        )

    return shaker


class _Prefixed(trio.abc.Stream):
    """A stream whose first bytes go out in one piece with what is sent first.

    So the preamble shares the flight, and the segment, of the ClientHello.
    """

    def __init__(self, inner: trio.abc.Stream, prefix: bytes) -> None:
        self._inner = inner
        self._prefix = prefix

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        prefix, self._prefix = self._prefix, b""
        await self._inner.send_all(prefix + bytes(data) if prefix else data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

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


async def _wait_hello(machine: Handshake, stream: Tls) -> PeerKnown:
    while True:
        for event in machine.receive_untrusted(await _receive(stream)):
            if isinstance(event, PeerKnown):
                return event
            assert not isinstance(event, Established)


async def _receive(stream: Tls) -> bytes:
    data = await stream.receive_some(limits.CHUNK_BYTES)
    if not data:
        msg = "the peer closed the connection in the handshake"
        raise PeerError(msg)
    return bytes(data)


def _purpose(machine: Handshake, known: PeerKnown) -> Purpose:
    # Whoever dials says what the connection is for.
    return known.purpose if machine.side is Side.SERVER else machine.purpose


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
    stream: trio.abc.Stream, connection: Connection
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
        msg = f"no channel to {connection.remote}"
        raise UnreachableError(msg, why=why) from exc
    except BaseException:
        await trio.aclose_forcefully(connection.stream)
        raise
