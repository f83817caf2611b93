"""Announcing this node on the local network, and finding those of the other role."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.model.address import Address
from aemesh.net.interfaces import InterfaceWatch, LocalAddress, local_addresses
from aemesh.net.mdns import Mdns, open_mdns
from aemesh.net.presence import Announcer, Clock, Presence, Sign
from aemesh.net.sighting import NewsStream, instance_names
from aemesh.policy.discovery import News, Sightings, dialable
from aemesh.protocol.announcement import instance_name
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from aemesh.model.key import KeyId
    from aemesh.model.trust import Role

# How often a renewal may be due: the clock of a machine that slept, or that was set
# by hand, has jumped, so that one long sleep would be the wrong one.
_LOOK_EVERY = 60.0


class LanDiscovery:
    """Discovery by multicast DNS; made by `open_discovery`."""

    def __init__(
        self,
        mdns: Mdns,
        local: tuple[LocalAddress, ...],
        *,
        clock: Clock,
        loopback: bool,
    ) -> None:
        self._mdns = mdns
        self._local = local
        self._clock = clock
        self._loopback = loopback
        self._announcers: dict[str, Announcer] = {}
        self._moved = trio.Event()

    @property
    def local(self) -> tuple[LocalAddress, ...]:
        """Our addresses, as far as we know."""
        return self._local

    def __repr__(self) -> str:
        names = ", ".join(one.presence.name for one in self._announcers.values())
        return f"<LanDiscovery of {names or 'nobody'}, {self._mdns!r}>"

    async def announce(self, presence: Presence, *, sign: Sign) -> None:
        """Announce a node; see `Discovery.announce`.

        Without a network it is announced as soon as there is one.
        """
        instance = instance_name(presence.key.key_id)
        announcer = self._announcers.setdefault(
            instance, Announcer(presence, sign=sign)
        )
        announcer.presence = presence
        await self._send(announcer)

    async def withdraw(self, key_id: KeyId) -> None:
        """Say good-bye for a node; see `Discovery.withdraw`."""
        announcer = self._announcers.pop(instance_name(key_id), None)
        if announcer is not None:
            await self._mdns.withdraw(announcer.presence.role, announcer.instance)

    async def re_announce(self) -> None:
        """Sign and send all announcements afresh."""
        for announcer in tuple(self._announcers.values()):
            await self._send(announcer)

    @asynccontextmanager
    async def browse(
        self, role: Role, sightings: Sightings
    ) -> AsyncIterator[AsyncIterator[News]]:
        """Tell what is heard of nodes of `role`; see `Discovery.browse`."""

        def wanted() -> frozenset[str]:
            return instance_names(sightings.known)

        async with self._mdns.browse(role, wanted=wanted) as browser:
            yield NewsStream(
                role,
                sightings,
                receive=browser.receive,
                clock=self._clock,
                links=self._links,
            )

    async def move(self, local: tuple[LocalAddress, ...]) -> None:
        """Our addresses are these now: announce them, and listen on them.

        The same ones: we may be elsewhere, or were away; say and ask all afresh.
        """
        self._local = local
        self._moved.set()
        self._moved = trio.Event()
        # First the new words, then the new sockets, which repeat them.
        await self.re_announce()
        await self._mdns.rebind(local)

    async def wait_move(self) -> None:
        """Wait until the network may be another one; then it is worth a dial."""
        await self._moved.wait()

    async def renew(self) -> None:
        """Send again what is halfway to its expiry; try the network again."""
        if not self._mdns.is_open:
            await self._mdns.rebind(self._local)
        now = self._clock()
        for announcer in tuple(self._announcers.values()):
            if announcer.is_due(now):
                await self._send(announcer)

    async def _send(self, announcer: Announcer) -> None:
        # Others dial no public address, so it would only take the place of a good one.
        hosts = [one.host for one in self._local if self._is_useful(one.host)]
        if not hosts:
            return
        await self._mdns.announce(
            announcer.presence.role,
            announcer.instance,
            port=announcer.presence.port,
            txt=announcer.make(hosts, self._clock()),
            hosts=hosts,
        )

    def _is_useful(self, host: str) -> bool:
        return dialable(Address(host, limits.LOWEST_PORT), loopback=self._loopback)

    def _links(self) -> tuple[str, ...]:
        """The interfaces that a link-local address of another node may be behind."""
        scopes = (one.host.partition("%")[2] for one in self._local)
        return tuple(dict.fromkeys(scope for scope in scopes if scope))


@asynccontextmanager
async def open_discovery(
    *,
    clock: Clock = time.time,
    interfaces: Collection[str] | None = None,
    loopback: bool = False,
) -> AsyncIterator[LanDiscovery]:
    """Be on the local network until the block ends; then say goodbye.

    `interfaces` names the ones to use, all if None; `loopback` is for tests and for
    two nodes on a machine without a network.  Follows what changes at the interfaces.
    """
    local = local_addresses(interfaces, loopback=loopback)
    async with open_mdns(local) as mdns, open_crew() as crew:
        discovery = LanDiscovery(mdns, local, clock=clock, loopback=loopback)
        crew.start_soon(_follow, discovery, interfaces, loopback)
        crew.start_soon(_renew, discovery)
        try:
            yield discovery
        finally:
            crew.cancel_scope.cancel()


async def _follow(
    discovery: LanDiscovery, interfaces: Collection[str] | None, loopback: bool
) -> None:
    watch = InterfaceWatch(interfaces, loopback=loopback)
    now = await anext(watch)
    if now != discovery.local:  # since it was opened
        await discovery.move(now)
    async for local in watch:
        await discovery.move(local)


async def _renew(discovery: LanDiscovery) -> None:
    while True:
        await trio.sleep(_LOOK_EVERY)
        await discovery.renew()
