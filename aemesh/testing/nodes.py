"""Nodes for tests: a fresh key, a doorman that says what it is told, and a handshake.

What they shake hands with is the real `aemesh.net.shake`, over streams in memory.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from aemesh.errors import AemeshError, RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.site.x509credentials import X509Credentials, as_certified
from aemesh.model.address import Address
from aemesh.model.jointoken import JoinToken
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    Decision,
    Mode,
    Peer,
    Proof,
    Reason,
    Role,
    TokenProof,
    Verdict,
)
from aemesh.net.doorman import Doorman, MakeGss
from aemesh.net.shake import Channel, Shaker
from aemesh.net.tls import client_context
from aemesh.net.transport import Connection
from aemesh.protocol.hello import Ourselves, Purpose
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aemesh.model.key import KeyId, PublicKey

OK = Verdict(Decision.OK, Reason.KNOWN)
PENDING = Verdict(Decision.PENDING, Reason.UNKNOWN, "a person has to accept the key")
NO = Verdict(Decision.NO, Reason.DECLINED, "a person said no")


@dataclass(slots=True)
class FixedClock:
    """A time of day that stands still."""

    wall: float = 1_800_000_000.0

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.wall

    def nonce(self) -> bytes:
        """Return 16 random bytes."""
        return os.urandom(16)


@dataclass(slots=True)
class FixedProofs:
    """Asks what it is told to, and knows the tokens that it is given."""

    asked: frozenset[Proof] = frozenset()
    token: JoinToken | None = None
    secrets: dict[str, bytes] = field(default_factory=dict)
    refused: Reason | None = None  # what becomes of a token that proves itself
    tries: int = 100  # meetings that are left

    def asks(self, key: PublicKey | None) -> frozenset[Proof]:
        """Return the proofs of the moment."""
        del key
        return self.asked

    def join_token(self) -> JoinToken | None:
        """Return the token."""
        return self.token

    def token_secret(self, token_id: str) -> bytes | None:
        """Return the secret of a token, if there is one of this id."""
        return self.secrets.get(token_id)

    def token_proof(self, token_id: str, peer: Peer) -> TokenProof:
        """Return what the token is worth."""
        del peer
        return TokenProof(token_id, self.refused)

    def begin_pairing(self, peer: Peer) -> Verdict | None:
        """Count a meeting."""
        del peer
        self.tries -= 1
        return NO if self.tries < 0 else None


@dataclass(slots=True)
class FixedDoorman:
    """Says `verdict`, which a test may change, and notes what it was told."""

    verdict: Verdict = OK
    admitting: bool = True
    proofs: FixedProofs = field(default_factory=FixedProofs)
    commit_error: RefusedError | None = None
    judged: list[Peer] = field(default_factory=list)
    skews: list[float] = field(default_factory=list)
    heard_verdicts: list[Verdict] = field(default_factory=list)
    committed: list[Peer] = field(default_factory=list)

    def admits(self, key_id: KeyId, chain: tuple[bytes, ...]) -> Verdict | None:
        """Return the no to what is announced before TLS, or None."""
        del key_id, chain
        return None if self.admitting else NO

    def judge(
        self, peer: Peer, *, purpose: Purpose, skew: float, expected: KeyId | None
    ) -> Verdict:
        """Return the verdict of the moment."""
        del purpose, expected
        self.judged.append(peer)
        self.skews.append(skew)
        return self.verdict

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Note what the peer says."""
        del peer
        self.heard_verdicts.append(verdict)

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Note whom an ok was kept of."""
        del verdict
        if self.commit_error is not None:
            raise self.commit_error
        self.committed.append(peer)


@dataclass(slots=True)
class Node:
    """A master or a worker that can shake hands."""

    role: Role
    identity: Identity
    doorman: Doorman
    mode: Mode = Mode.LEAP
    clock: FixedClock = field(default_factory=FixedClock)
    servers: dict[bytes, ssl.SSLContext] = field(default_factory=dict)
    gss: MakeGss | None = None
    certified: X509Credentials | None = None
    run: str = ""

    @classmethod
    def fresh(
        cls,
        role: Role,
        *,
        doorman: Doorman | None = None,
        mode: Mode = Mode.LEAP,
        name: str | None = None,
    ) -> Node:
        """Return a node with a key of its own; it says ok to all, unless told."""
        name = name or ("desk" if role is Role.MASTER else "lab-1")
        return cls(role, Identity.ephemeral(name), doorman or FixedDoorman(), mode)

    @property
    def shaker(self) -> Shaker:
        """What shakes hands for this node."""
        return self.shaker_for(self.doorman)

    def shaker_for(self, doorman: Doorman) -> Shaker:
        """Return what shakes hands with another doorman."""
        ours = Ourselves(
            role=self.role,
            name=NodeName(self.identity.name),
            key_id=self.identity.key_id,
            mode=self.mode,
            run=self.run,
        )
        if self.certified is not None:
            ours = as_certified(ours, self.certified, self.identity)
        credentials = self.certified or self.identity
        return Shaker(
            credentials=credentials,
            ours=ours,
            doorman=doorman,
            client=client_context(credentials),
            clock=self.clock,
            servers=self.servers,
            gss=self.gss,
        )


def connection_pair(
    ends: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> tuple[Connection, Connection]:
    """Return both ends of a connection, over these streams or over memory."""
    dialled, accepted = ends or trio.testing.memory_stream_pair()
    near, far = Address("192.0.2.1", 40001), Address("192.0.2.2", 7472)
    return Connection(dialled, near, far), Connection(accepted, far, near)


async def shake_hands(
    client: Node,
    server: Node,
    *,
    ends: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    expected: KeyId | None = None,
    purpose: Purpose = Purpose.CONTROL,
) -> tuple[Channel, Channel]:
    """Return both ends of a channel; raises what the first that fails raises."""
    dialled, accepted = connection_pair(ends)
    channels: dict[Role, Channel] = {}

    async def accept() -> None:
        channels[server.role] = await server.shaker.accept(accepted)

    async with open_crew() as crew:
        crew.start_soon(accept)
        channels[client.role] = await client.shaker.connect(
            dialled, expected=expected, purpose=purpose
        )
    return channels[client.role], channels[server.role]


async def both(
    client: Node,
    server: Node,
    *,
    expected: KeyId | None = None,
    purpose: Purpose = Purpose.CONTROL,
) -> list[Channel | AemeshError]:
    """Return what each side came to, the client's first: a channel or its error."""
    dialled, accepted = connection_pair()
    came: dict[str, Channel | AemeshError] = {}

    async def note(side: str, shake: Callable[[], Awaitable[Channel]]) -> None:
        try:
            came[side] = await shake()
        except AemeshError as exc:
            came[side] = exc

    connect = partial(
        client.shaker.connect, dialled, expected=expected, purpose=purpose
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "server", partial(server.shaker.accept, accepted))
        await note("client", connect)
    return [came["client"], came["server"]]
