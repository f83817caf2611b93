"""Discovery in memory: nodes on one network segment, with anybody's forgeries.

It judges what it hears with the same code as the real one; only the packets are not
there.  Held to `aemesh.testing.checks_discovery`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.net.presence import Announcer, Clock, Presence, Sign
from aemesh.net.sighting import Gone, Heard, NewsStream
from aemesh.protocol.announcement import instance_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aemesh.model.key import KeyId
    from aemesh.model.trust import Role
    from aemesh.policy.discovery import News, Sightings

# Virtual time begins at zero; announcements want a year.
_EPOCH = 1_800_000_000


def virtual_clock() -> float:
    """Return seconds since 1970, as far as trio's clock went on."""
    return _EPOCH + trio.current_time()


class MemorySegment:
    """One local network: what is said here, all hear at once."""

    def __init__(self, *, clock: Clock = virtual_clock) -> None:
        self.clock = clock
        self.dropped = 0
        self._said: dict[tuple[Role, str], Heard] = {}
        self._ears: dict[trio.MemorySendChannel[Heard | Gone], Role] = {}

    def __repr__(self) -> str:
        return f"<MemorySegment {len(self._said)} said, {len(self._ears)} listening>"

    @asynccontextmanager
    async def open(
        self, *hosts: str, clock: Clock | None = None
    ) -> AsyncIterator[MemoryDiscovery]:
        """Join with these addresses; says goodbye at the block's end."""
        node = MemoryDiscovery(self, hosts or ("10.0.0.1",), clock or self.clock)
        try:
            yield node
        finally:
            node.leave()

    def say(self, role: Role, instance: str, txt: Mapping[bytes, bytes | None]) -> None:
        """Announce, as anybody may; later listeners hear it too."""
        self._said[role, instance] = heard = Heard(instance, txt)
        self._tell(role, heard)

    def goodbye(self, role: Role, instance: str) -> None:
        """Say goodbye in the name of an instance, as anybody may."""
        self._said.pop((role, instance), None)
        self._tell(role, Gone(instance))

    @asynccontextmanager
    async def listen(
        self, role: Role
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Heard | Gone]]:
        """Hear all that was said of a role, and what will be."""
        # Full: dropped, as the real one does.
        send, receive = trio.open_memory_channel[Heard | Gone](
            limits.MDNS_EVENTS_WAITING
        )
        self._ears[send] = role
        for (kind, _), heard in tuple(self._said.items()):
            if kind is role:
                self._put(send, heard)
        try:
            yield receive
        finally:
            del self._ears[send]

    def _tell(self, role: Role, event: Heard | Gone) -> None:
        for ear, kind in self._ears.items():
            if kind is role:
                self._put(ear, event)

    def _put(
        self, ear: trio.MemorySendChannel[Heard | Gone], event: Heard | Gone
    ) -> None:
        try:
            ear.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1


class MemoryDiscovery:
    """One node on a segment; made by `MemorySegment.open`."""

    def __init__(
        self, segment: MemorySegment, hosts: Iterable[str], clock: Clock
    ) -> None:
        self._segment = segment
        self._hosts = tuple(hosts)
        self._clock = clock
        self._announcers: dict[str, Announcer] = {}

    async def announce(self, presence: Presence, *, sign: Sign) -> None:
        """Announce a node; see `Discovery.announce`."""
        await trio.lowlevel.checkpoint()
        instance = instance_name(presence.key.key_id)
        announcer = self._announcers.setdefault(
            instance, Announcer(presence, sign=sign)
        )
        announcer.presence = presence
        self._say(announcer)

    async def withdraw(self, key_id: KeyId) -> None:
        """Say good-bye for a node; see `Discovery.withdraw`."""
        await trio.lowlevel.checkpoint()
        announcer = self._announcers.pop(instance_name(key_id), None)
        if announcer is not None:
            self._segment.goodbye(announcer.presence.role, announcer.instance)

    async def re_announce(self) -> None:
        """Sign and say all announcements afresh."""
        await trio.lowlevel.checkpoint()
        for announcer in self._announcers.values():
            self._say(announcer)

    @asynccontextmanager
    async def browse(
        self, role: Role, sightings: Sightings
    ) -> AsyncIterator[AsyncIterator[News]]:
        """Tell what is said of nodes of `role`; see `Discovery.browse`."""
        async with self._segment.listen(role) as ear:
            yield NewsStream(role, sightings, receive=ear.receive, clock=self._clock)

    async def move(self, *hosts: str) -> None:
        """Our addresses are these now."""
        self._hosts = hosts
        await self.re_announce()

    def leave(self) -> None:
        """Say goodbye for all that was announced."""
        for announcer in self._announcers.values():
            self._segment.goodbye(announcer.presence.role, announcer.instance)

    def _say(self, announcer: Announcer) -> None:
        txt = announcer.make(self._hosts, self._clock())
        entries = {key.encode(): value.encode() for key, value in txt.items()}
        self._segment.say(announcer.presence.role, announcer.instance, entries)
