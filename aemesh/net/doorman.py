"""Who decides in a handshake, and what a handshake needs besides the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from aemesh.model.trust import Decision, Reason, Verdict

if TYPE_CHECKING:
    from aemesh.model.jointoken import JoinToken
    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.names import GroupName, NodeName
    from aemesh.model.trust import Peer, Proof, Terms, TokenProof
    from aemesh.protocol.hello import Purpose


class GssParty(Protocol):
    """One side of a GSS-API exchange; `aemesh.net.gss` or a fake."""

    @property
    def complete(self) -> bool:
        """Whether our side needs no further token."""

    @property
    def principal(self) -> str:
        """The peer's principal, once complete: ``alice@EXAMPLE.ORG``."""

    async def step(self, token: bytes | None) -> bytes | None:
        """Take the peer's token, None at first; return ours, None if there is none.

        Raises `RefusedError` or `UnreachableError`.
        """


# Makes our side for a peer, bound to a connection by the bytes.
MakeGss = Callable[["Peer", bytes], GssParty]


class Proofs(Protocol):
    """What a node knows for the proofs of its handshakes; nothing here waits."""

    def asks(self, key: PublicKey | None) -> frozenset[Proof]:
        """Return the proofs that we want of, or have for, whoever has this key."""

    def join_token(self) -> JoinToken | None:
        """Return the token that we were given, a worker; None without one."""

    def token_secret(self, token_id: str) -> bytes | None:
        """Return the secret of a token that we gave out, a master; None if unknown."""

    def token_proof(self, token_id: str, peer: Peer) -> TokenProof:
        """Return what a token of ours is worth to a peer that knows its secret."""

    def begin_pairing(self, peer: Peer) -> Verdict | None:
        """Count a meeting with a stranger; return the no if there were too many."""


class Doorman(Protocol):
    """Who decides in one handshake; nothing here waits."""

    @property
    def proofs(self) -> Proofs:
        """What the node knows for proofs."""

    def admits(self, key_id: KeyId, chain: tuple[bytes, ...]) -> Verdict | None:
        """Return None if what is only announced is worth TLS, else the no to it.

        `key_id` is the fingerprint of the leaf's key, `chain` is DER, leaf first.
        """

    def judge(
        self, peer: Peer, *, purpose: Purpose, skew: float, expected: KeyId | None
    ) -> Verdict:
        """Return the verdict; asked again while it is pending."""

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """The peer's own verdict, for whoever shows it."""

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Keep what an ok is worth keeping of; may raise `RefusedError`.

        The server commits before it says ok, the client once it has heard that.
        """


class Desk(Protocol):
    """Who decides about peers for a whole node; `host/trust/trustdesk.py` or a fake."""

    @property
    def proofs(self) -> Proofs:
        """What the node knows for proofs."""

    def admits(self, key_id: KeyId, chain: tuple[bytes, ...]) -> Verdict | None:
        """Return None if what is announced is worth a handshake, else the no."""

    def judge(
        self, peer: Peer, *, expected: KeyId | None = None, asks: bool = True
    ) -> Verdict:
        """Return the verdict on a peer; without `asks` no person is asked about it."""

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Keep what an ok is worth keeping of."""

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what the peer says of us."""

    def knows(self, key_id: KeyId) -> bool:
        """Whether this key was accepted already."""

    def strangers(self, key_ids: Iterable[KeyId]) -> Iterator[KeyId]:
        """Yield those of these keys that were not accepted; for many at once."""

    def name_of(self, key_id: KeyId) -> NodeName | None:
        """Return the name under which this key was accepted, if it was."""

    def take_next_key(self, peer: Peer, following: PublicKey) -> None:
        """Write down the key that a peer will have, or raise `RefusedError`."""

    def allows_group(self, peer: Peer, group: GroupName) -> bool:
        """Whether the terms of its trust let a peer serve, or use, this group."""

    def observes(self, peer: Peer) -> bool:
        """Whether a person let this peer ask about all that we do."""

    def terms_of(self, peer: Peer) -> tuple[Terms, ...]:
        """Return the terms under which a peer is let in; each has to allow a thing."""

    async def wait_change(self) -> None:
        """Wait until trust may have changed."""


class DeskDoorman:
    """Asks the desk of a node, and nothing else; others add what they know."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @property
    def proofs(self) -> Proofs:
        """What the node knows for proofs."""
        return self.desk.proofs

    def admits(self, key_id: KeyId, chain: tuple[bytes, ...]) -> Verdict | None:
        """Return the desk's no to what is announced before TLS, or None."""
        return self.desk.admits(key_id, chain)

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,  # noqa: ARG002 - the protocol's
        expected: KeyId | None,
    ) -> Verdict:
        """Return the desk's verdict."""
        return self.desk.judge(peer, expected=expected)

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Tell the desk what the peer says of us."""
        self.desk.heard(peer, verdict)

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Have the desk keep what an ok is worth keeping of."""
        self.desk.commit(peer, verdict)


class StreamCaller(DeskDoorman):
    """The doorman of a stream that we dial: only to whom we are linked already."""

    def __init__(self, desk: Desk, link: Peer | None) -> None:
        super().__init__(desk)
        self._link = link

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,  # noqa: ARG002 - the protocol's
        expected: KeyId | None,
    ) -> Verdict:
        """Return the desk's verdict; a person is not asked for a stream."""
        if self._link is not None:  # it has proved this already
            peer = replace(peer, principal=self._link.principal)
        verdict = self.desk.judge(peer, expected=expected, asks=False)
        if verdict.decision is Decision.PENDING:
            return Verdict(Decision.NO, Reason.UNKNOWN, "a stream needs trust first")
        return verdict

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """A stream changes nothing."""

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """The refusal itself is raised."""


class Clock(Protocol):
    """The time of day and chance, so that a test can hand in its own."""

    def now(self) -> float:
        """Return seconds since 1970."""

    def nonce(self) -> bytes:
        """Return 16 random bytes."""
