"""What a worker tells each master of itself, again whenever its lease changes.

Several masters may be linked to one worker, and one of them holds it.  The others need
not ask again and again whether it is free: they are told when it is taken, and by whom,
and when it is given back.  Only linked masters hear this, and so only those that the
owner trusts; the name of the group only those whose line of trust has that group.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aemesh.errors import UnreachableError
from aemesh.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.model.key import KeyId
    from aemesh.model.machine import Facts
    from aemesh.model.names import NodeName
    from aemesh.model.trust import Peer
    from aemesh.net.doorman import Desk
    from aemesh.net.link import Link
    from aemesh.worker.held import Held
    from aemesh.worker.wishes import Wishes


class Tidings:
    """One worker's news of itself."""

    def __init__(  # noqa: PLR0913 - what it tells of, by name
        self,
        facts: Facts,
        held: Held,
        desk: Desk,
        *,
        until_after: Callable[[KeyId], float | None] = lambda _: None,
        wishes: Wishes | None = None,
        spares: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._facts = facts
        self._held = held
        self._desk = desk
        self._until_after = until_after
        self._wishes = wishes
        self._spares = spares
        self._serials = itertools.count(1)
        self._links: set[Link] = set()
        # Who held us when its link ended, and its name: the lease may go on.
        self._gone: tuple[KeyId, NodeName] | None = None

    def __repr__(self) -> str:
        return f"<Tidings of {self._held!r}>"

    def body(self, listener: Peer) -> wire.WorkerFacts:
        """Return what this master is told now."""
        facts, tenancy = self._facts, self._held.tenancy
        told = (
            self._wishes.told(listener.key_id) if self._wishes else ((), False, False)
        )
        wanted, over, waits = told
        spares, spare_memory = self._spares()
        return wire.WorkerFacts(
            cores=facts.cores,
            memory=facts.memory,
            python=facts.python,
            system=facts.system,
            generation=tenancy.generation,
            groups=tuple(sorted(tenancy.groups)),
            lease=self._lease(listener),
            until_after=self._until_after(listener.key_id),
            labels=facts.labels,
            forward=facts.forward.value,
            wanted=wanted,
            over=over,
            waits=waits,
            spares=spares,
            spare_memory=spare_memory,
        )

    async def tell(self, link: Link) -> None:
        """Tell a master now; one that is gone hears nothing."""
        try:
            # Notices may be handled in another order than they came in.
            serial = next(self._serials)
            await link.tell(replace(self.body(link.peer), serial=serial))
        except UnreachableError:
            return

    async def keep_telling(self, link: Link) -> None:
        """Tell a master at once, and whenever there is something new, until cancelled.

        What changes while the line is slow is told once, as it is then.
        """
        told: wire.WorkerFacts | None = None
        self._links.add(link)
        try:
            while link.closed is None:
                changed = self._held.changed  # taken first, so that none is missed
                body = self.body(link.peer)
                if body != told:
                    told = body
                    await self.tell(link)
                await changed.wait()
        finally:
            self._links.discard(link)
            lease = self._held.tenancy.lease
            if lease is not None and lease.master == link.peer.key_id:
                self._gone = (link.peer.key_id, link.peer.name)

    def _lease(self, listener: Peer) -> wire.HeldBy | None:
        lease = self._held.tenancy.lease
        if lease is None:
            return None
        may_know = lease.master == listener.key_id or self._desk.allows_group(
            listener, lease.group
        )
        return wire.HeldBy(
            master=str(lease.master),
            name=self._name(lease.master),
            group=lease.group if may_know else "",
            generation=lease.generation,
        )

    def _name(self, master: KeyId) -> str:
        for link in self._links:
            if link.peer.key_id == master:
                return link.peer.name
        if self._gone is not None and self._gone[0] == master:
            return self._gone[1]
        return self._desk.name_of(master) or master.label
