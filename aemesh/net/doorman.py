"""Who decides in a handshake, and what a handshake needs besides the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.names import NodeName
    from aemesh.model.trust import Peer, Verdict
    from aemesh.protocol.handshake import Purpose


class Doorman(Protocol):
    """Who decides in one handshake; nothing here waits."""

    def admits(self, key: PublicKey) -> bool:
        """Whether a key that is only announced is worth a TLS handshake."""

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
    """Who decides about peers for a whole node; `aemesh.host.trustdesk` or a fake."""

    def admits(self, key: PublicKey) -> bool:
        """Whether an announced key is worth a handshake."""

    def judge(self, peer: Peer, *, expected: KeyId | None = None) -> Verdict:
        """Return the verdict on a peer."""

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Keep what an ok is worth keeping of."""

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what the peer says of us."""

    def knows(self, key_id: KeyId) -> bool:
        """Whether this key was accepted already."""

    def name_of(self, key_id: KeyId) -> NodeName | None:
        """Return the name under which this key was accepted, if it was."""

    async def wait_change(self) -> None:
        """Wait until trust may have changed."""


class Clock(Protocol):
    """The time of day and chance, so that a test can hand in its own."""

    def now(self) -> float:
        """Return seconds since 1970."""

    def nonce(self) -> bytes:
        """Return 16 random bytes."""
