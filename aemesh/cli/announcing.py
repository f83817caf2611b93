"""What a node says on the local network, and what it hears of the other role there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.net.presence import Presence
from aemesh.policy.discovery import News, Sightings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aemesh.cli.node import Node
    from aemesh.model.machine import Facts
    from aemesh.model.trust import Role
    from aemesh.net.discovery import LanDiscovery


class Announcing:
    """Announces a node of either role on the local network."""

    def __init__(self, node: Node, discovery: LanDiscovery) -> None:
        self._node = node
        self._discovery = discovery
        self._again = trio.Event()

    async def announce(self, facts: Facts | None = None, *, port: int) -> None:
        """Announce until cancelled; then say good-bye."""
        node = self._node
        presence = Presence(
            role=node.role,
            name=node.name,
            key=node.identity.public,
            mode=node.mode,
            cores=facts.cores if facts else 0,
            memory=facts.memory if facts else 0,
            port=port,
            run=node.run,
        )
        await self._discovery.announce(presence, sign=node.identity.sign)
        try:
            while True:
                await self._again.wait()
                self._again = trio.Event()
                await self._discovery.re_announce()
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(limits.GOODBYE_AFTER):
                    await self._discovery.withdraw(node.identity.key_id)

    def announce_again(self) -> None:
        """Announce anew: who was refused tries again when that is heard."""
        self._again.set()


class Finder:
    """Hears of nodes of one role on the local network."""

    def __init__(self, role: Role, node: Node, discovery: LanDiscovery) -> None:
        self._role = role
        self._node = node
        self._discovery = discovery

    async def news(self) -> AsyncIterator[News]:
        """Yield what is heard; those that are known are never forgotten."""
        desk = self._node.desk
        sightings = Sightings(desk.book.keys)
        async with self._discovery.browse(self._role, sightings) as heard:
            async for news in heard:
                yield news
                sightings.set_known(desk.book.keys)
