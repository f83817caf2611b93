"""What other masters want of this worker, and the owner's span of a lease.

The wishes come over the links, and go to the holder with the worker's facts.  With
`--lease SPAN` a lease that somebody else waits for is over after the span: the holder
is told, and gives the worker back as at any departure; one that does not is left.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.policy.turns import Turns
from aemesh.protocol import wire
from aemesh.tasks.waiting import wait_any

if TYPE_CHECKING:
    from aemesh.model.group import Lease
    from aemesh.model.key import KeyId
    from aemesh.net.links import Links
    from aemesh.worker.held import Held

_log = logging.getLogger(__name__)


class Wishes:
    """The wishes of one worker's masters; `run` it while the worker runs."""

    def __init__(self, held: Held, links: Links, lease_after: float | None) -> None:
        self.turns = Turns()
        self._held = held
        self._links = links
        self._lease_after = lease_after
        self._lease: Lease | None = None
        self._since = 0.0
        self._turn_at: float | None = None  # the end of a turn, as last seen
        self._over_at: float | None = None  # the lease is over since then

    def __repr__(self) -> str:
        return f"<Wishes {self.turns!r}>"

    def take(self, master: KeyId, body: wire.Want) -> wire.Body:
        """Take in what a master wants."""
        if self.turns.want(master, body.workers):
            self._held.tell_changed()
        return wire.Done()

    def check_turn(self, master: KeyId) -> None:
        """Raise `RefusedError` if others go before this master."""
        self._look()
        if self.turns.waits(master, trio.current_time()):
            what = "others have their turn"
            raise RefusedError(what, why="they want the worker, and you had it")

    def told(self, listener: KeyId) -> tuple[tuple[wire.WantedBy, ...], bool, bool]:
        """Return, for the facts of a listener: who wants us, `over`, and `waits`."""
        self._look()
        waits = self.turns.waits(listener, trio.current_time())
        lease = self._held.tenancy.lease
        if lease is None or lease.master != listener:
            return (), False, waits
        wanted = self.turns.wanted_besides(listener)
        bodies = tuple(
            wire.WantedBy(master=str(key), workers=count)
            for key, count in sorted(wanted.items(), key=lambda one: str(one[0]))
        )
        return bodies[: limits.WISHES], self._over_at is not None, waits

    async def run(self) -> None:
        """Follow leases, links and turns, until cancelled."""
        while True:
            changed, linked = self._held.changed, self._links.changed
            self._look()
            with trio.move_on_at(self._next_at()):
                await wait_any(changed.wait, linked.wait)
            if self._due():
                await self._end_lease()

    def _look(self) -> None:
        """Note what changed since the last look."""
        now, lease = trio.current_time(), self._held.tenancy.lease
        for master in list(self.turns.wants):
            if master not in self._links:
                self.turns.want(master, 0)
                self._held.tell_changed()
        if lease != self._lease:
            self._take_note(self._lease, lease, now)
            self._lease = lease
            self._held.tell_changed()
        turn_at = self.turns.next_at(now)
        if turn_at != self._turn_at:
            self._turn_at = turn_at
            self._held.tell_changed()
        over = self._is_over(now)
        if over != (self._over_at is not None):
            self._over_at = now if over else None
            self._held.tell_changed()

    def _take_note(self, before: Lease | None, lease: Lease | None, now: float) -> None:
        """A lease began, ended, or became another one."""
        if before and lease and before.master == lease.master:
            return  # in another group, or on new terms: the owner's span goes on
        if before is not None:
            self.turns.ended(before.master, now)
        if lease is not None:
            self.turns.taken()
        self._since, self._over_at = now, None

    def _is_over(self, now: float) -> bool:
        return (
            self._lease is not None
            and self._lease_after is not None
            and now >= self._since + self._lease_after
            and bool(self.turns.wanted_besides(self._lease.master))
        )

    def _next_at(self) -> float:
        now = trio.current_time()
        moments = [self.turns.next_at(now)]
        if self._over_at is not None:
            moments.append(self._over_at + limits.LEASE_OVER_AFTER)
        elif self._lease is not None and self._lease_after is not None:
            end = self._since + self._lease_after
            # After it, a wish that comes is a change, which wakes us.
            moments.append(end if end > now else None)
        return min((one for one in moments if one is not None), default=float("inf"))

    def _due(self) -> bool:
        over_at, now = self._over_at, trio.current_time()
        return over_at is not None and now >= over_at + limits.LEASE_OVER_AFTER

    async def _end_lease(self) -> None:
        """The holder did not give us back in its time: leave it."""
        _log.warning("the lease was over, and its master kept us: it is left")
        await self._held.let_go(limits.TERM_AFTER)
