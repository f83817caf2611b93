"""What a node announces of itself, and the way to be found and to find.

`aemesh.net.discovery` is the real one, `aemesh.testing.memory_discovery` one in memory;
both are held to `aemesh.testing.checks_discovery`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aemesh import limits
from aemesh.model.address import Address
from aemesh.model.key import PublicKey
from aemesh.model.machine import Announcement
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.protocol.announcement import announced_addresses, encode, instance_name

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from aemesh.model.key import KeyId
    from aemesh.policy.discovery import News, Sightings

Sign = Callable[[bytes], bytes]
Clock = Callable[[], float]  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Presence:
    """What a node announces of itself; where and until when is found out."""

    role: Role
    name: NodeName
    key: PublicKey
    mode: Mode
    cores: int
    memory: int  # bytes
    port: int
    run: str  # the same as in HELLO; `aemesh.net.wallclock.new_run`


class Discovery(Protocol):
    """A way to be found and to find."""

    async def announce(self, presence: Presence, *, sign: Sign) -> None:
        """Announce until the discovery closes; again with the same key: change it.

        Returns when it was sent the first time.
        """

    async def withdraw(self, key_id: KeyId) -> None:
        """Announce the node of this key no longer, and say good-bye for it."""

    async def re_announce(self) -> None:
        """Sign and send all announcements afresh."""

    def browse(
        self, role: Role, sightings: Sightings
    ) -> AbstractAsyncContextManager[AsyncIterator[News]]:
        """Tell what is heard of nodes of `role`, as `sightings` judges it."""


class Announcer:
    """Makes the signed announcements of one node; each is later than the one before."""

    def __init__(self, presence: Presence, *, sign: Sign) -> None:
        self.presence = presence
        self.instance = instance_name(presence.key.key_id)
        self.renew_at = 0.0
        self._sign = sign
        self._signed_at = 0  # milliseconds, as they are sent

    def make(self, hosts: Iterable[str], now: float) -> dict[str, str]:
        """Return the TXT of an announcement for these addresses."""
        mine = self.presence
        # Also when the clock stepped back: others take only what is later.
        self._signed_at = max(int(now * 1000), self._signed_at + 1)
        signed_at = self._signed_at / 1000
        self.renew_at = now + limits.ANNOUNCEMENT_AFTER / 2
        announcement = Announcement(
            role=mine.role,
            name=mine.name,
            key=mine.key,
            mode=mine.mode,
            cores=mine.cores,
            memory=mine.memory,
            addresses=announced_addresses(Address(host, mine.port) for host in hosts),
            signed_at=signed_at,
            expires_at=int(signed_at + limits.ANNOUNCEMENT_AFTER),
            run=mine.run,
        )
        return encode(announcement, sign=self._sign)

    def is_due(self, now: float) -> bool:
        """Whether to renew; also if the clock was set back by more than a life."""
        return not 0 <= self.renew_at - now <= limits.ANNOUNCEMENT_AFTER
