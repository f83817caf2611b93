"""The workers that a master has heard of, and a courier for each.

The table is bounded: an office has tens of machines, a flood of made-up names must
not become a flood of records and dials (threat 61).  Workers that are trusted, or
linked, are never put out by others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import UnknownNameError, UsageError, quoted
from aemesh.master.anteroom import Anteroom
from aemesh.master.callbacks import Callbacks
from aemesh.master.clones import CloneWatch
from aemesh.master.courier import Attend, Courier, tell_request
from aemesh.master.imposters import Imposters, Lie, Seen
from aemesh.master.record import DRAINED, WorkerRecord
from aemesh.model.trust import Decision
from aemesh.net.links import Links
from aemesh.policy.discovery import (
    Expired,
    Imposter,
    New,
    Replayed,
    Same,
    Silent,
    Updated,
)
from aemesh.policy.membership import LINKED_STATES, Happening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aemesh.master.history import History
    from aemesh.master.parts import Parts
    from aemesh.model.key import KeyId
    from aemesh.model.machine import Announcement
    from aemesh.model.names import NodeName
    from aemesh.model.trust import Peer, Verdict
    from aemesh.net.shake import Channel


class Roster:
    """All workers by key; `run` finds them."""

    def __init__(
        self,
        parts: Parts,
        history: History,
        attend: Attend,
        *,
        callbacks: Callbacks | None = None,
        has_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self.records: dict[KeyId, WorkerRecord] = {}
        self._parts = parts
        self._history = history
        self._attend = attend
        self._couriers: dict[KeyId, Courier] = {}
        self.imposters = Imposters()
        self._anteroom = Anteroom()
        self.links = Links(parts.key_id)
        self._callbacks = callbacks or Callbacks()
        self._has_enough = has_enough
        self._nursery: trio.Nursery | None = None
        self._dialling = trio.CapacityLimiter(limits.DIALS_AT_ONCE)

    def __repr__(self) -> str:
        linked = sum(record.link is not None for record in self.records.values())
        return f"<Roster of {len(self.records)} workers, {linked} linked>"

    async def run(self) -> None:
        """Find workers and keep their couriers, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_trust)
            nursery.start_soon(self._watch_network)
            async for news in self._parts.finder.news():
                match news:
                    case New(said) | Updated(said) | Same(said):
                        self._hear(said)
                    case Imposter() | Replayed() | Expired():
                        self._doubt(news)
                    case Silent():
                        pass  # a good-bye, perhaps forged: links tell who is gone

    async def welcome(self, channel: Channel) -> None:
        """Have a worker that dialled us attended until its link ends."""
        peer = channel.peer
        self._record(peer.key_id, peer.name)
        await self._couriers[peer.key_id].serve(channel)

    def note_guest(self, peer: Peer, verdict: Verdict) -> None:
        """Show a worker that dialled us and waits for trust; who is refused is not."""
        if verdict.decision is not Decision.PENDING or peer.key_id in self.links:
            return
        record = self._record(peer.key_id, peer.name)
        if record.waiting is not verdict.reason:
            record.waiting = verdict.reason
            record.address = peer.address
            tell_request(self._history, peer, verdict)

    def try_all(self) -> None:
        """Let every courier look again whether its worker is to be dialled."""
        for courier in self._couriers.values():
            courier.try_now()

    def wake_all(self) -> None:
        """Let every worker's task look again at what is to be done."""
        for record in self.records.values():
            record.wake()

    def find(self, worker: str) -> WorkerRecord:
        """Return the worker of this name or fingerprint.

        Raises `UnknownNameError` if there is none, `UsageError` if several share it;
        one that is linked goes before those that are not.
        """
        found = [r for r in self.records.values() if worker in (r.name, str(r.key_id))]
        linked = [r for r in found if r.link is not None]
        if len(linked or found) > 1:
            what = f"several workers go by the name {quoted(worker)}"
            keys = ", ".join(str(record.key_id) for record in linked or found)
            raise UsageError(what, why=keys, hint="give the fingerprint of one")
        if not found:
            names = sorted(str(record.name) for record in self.records.values())
            kind = "worker"
            raise UnknownNameError(kind, worker, names)
        return (linked or found)[0]

    def check(self) -> None:
        """Assert what always holds."""
        assert self.records.keys() == self._couriers.keys()
        if len(self.records) > limits.NAMES_SEEN:
            assert next(self._who_may_go(), None) is None

    def _hear(self, announcement: Announcement) -> None:
        """Make a record of a new worker, and let its courier know of any."""
        key_id = announcement.key.key_id
        record = self._record(key_id, announcement.name)
        if record.membership.state not in LINKED_STATES:
            record.membership.step(Happening.ANNOUNCED, now=self._parts.wall())
            record.address = ", ".join(str(one) for one in announcement.addresses)
        addresses = filter(self._parts.dialable, announcement.addresses)
        courier = self._couriers[key_id]
        courier.hear(tuple(addresses), run=announcement.run)
        courier.clones.hear(announcement)

    def _record(self, key_id: KeyId, said: NodeName) -> WorkerRecord:
        """Return the record of a worker that was just heard of, a new one if needed."""
        if key_id not in self.records:
            self._make_room()
            self._new_record(key_id, said)
        # The one heard of last stands last: the first stranger is the next to go.
        self.records[key_id] = self.records.pop(key_id)
        return self.records[key_id]

    def _new_record(self, key_id: KeyId, said: NodeName) -> None:
        parts = self._parts
        generation, home = parts.store.worker(key_id)
        name = parts.desk.name_of(key_id) or said
        pinned = parts.store.pinned(key_id)
        record = WorkerRecord(key_id, name, home=home, pinned=pinned)
        record.membership.know_generation(generation)
        record.aside = DRAINED if parts.store.is_drained(key_id) else ""
        until, why, times = parts.store.aside(key_id)
        if until:
            now = trio.current_time()
            until += now - parts.wall()
            record.standing.restore(why, until=until, times=times, now=now)
        courier = Courier(
            record=record,
            network=parts.network,
            shaker=parts.shaker,
            desk=parts.desk,
            attend=self._attend,
            history=self._history,
            wall=parts.wall,
            dialling=self._dialling,
            anteroom=self._anteroom,
            imposters=self.imposters,
            links=self.links,
            callbacks=self._callbacks,
            has_enough=self._has_enough,
            clones=CloneWatch(
                record=record,
                network=parts.network,
                shaker=parts.shaker,
                desk=parts.desk,
                history=self._history,
                dialable=parts.dialable,
            ),
        )
        self.records[key_id] = record
        self._couriers[key_id] = courier
        assert self._nursery is not None, "workers are heard of while it runs"
        self._nursery.start_soon(courier.run)

    def _make_room(self) -> None:
        """Before one more comes, let go of the stranger heard of longest ago."""
        if len(self.records) < limits.NAMES_SEEN:
            return
        oldest = next(self._who_may_go(), None)
        if oldest is not None:
            del self.records[oldest]
            self._couriers.pop(oldest).end()

    def _who_may_go(self) -> Iterator[KeyId]:
        records = self.records.items()
        return self._parts.desk.strangers(k for k, one in records if one.link is None)

    def _doubt(self, news: Imposter | Replayed | Expired) -> None:
        """Show, once, what was announced in a name that it could not prove."""
        if isinstance(news, Imposter):
            self._show(_forged(news), who=quoted(news.instance), of=news.key_id)
            return
        said = news.announcement
        courier = self._couriers.get(said.key.key_id)
        if courier is not None and isinstance(news, Replayed):
            courier.clones.hear(said)
            if courier.clones.explains(said):
                return
        self._show(_late(news), who=said.name, of=said.key.key_id)

    def _show(self, seen: Seen, *, who: str, of: KeyId | None) -> None:
        """Count a lie about the key `of`, if that is known, and tell the first."""
        ours = of is not None and self._parts.desk.knows(of)
        times = self.imposters.see(seen, now=self._parts.wall(), ours=ours)
        if times == 1:
            text = f"an announcement of {who} is not believed: {seen.reason}"
            if seen.addresses:
                text += f"; it points to {', '.join(seen.addresses)}"
            self._history.add_of_stranger("discovery.imposter", text)
        record = self.records.get(of) if of else None
        if record is not None:
            record.imposters += 1

    async def _watch_network(self) -> None:
        """In another network, try at once whom we did not reach in the last one.

        No multicast need pass from there to them: they are dialled where they were.
        """
        while True:
            await self._parts.wait_move()
            for key_id, record in self.records.items():
                if record.link is None:
                    self._couriers[key_id].try_now()

    async def _watch_trust(self) -> None:
        """When trust changed: part with whom it no longer covers, try the others."""
        while True:
            await self._parts.desk.wait_change()
            for key_id, record in self.records.items():
                if record.link is None:
                    self._couriers[key_id].try_now()
                    continue
                verdict = self._parts.desk.judge(record.link.peer)
                if verdict.decision is not Decision.OK:
                    record.link.close(f"trust was withdrawn: {verdict.reason.value}")
                else:
                    record.wake()  # its line may have other groups now


def _forged(news: Imposter) -> Seen:
    claims = news.claims
    instance = quoted(news.instance)
    return Seen(
        subject=instance,
        lie=Lie.FORGED,
        name=claims.name or instance,
        key=str(claims.key_id or news.key_id or ""),
        addresses=claims.addresses,
        reason=news.reason,
    )


def _late(news: Replayed | Expired) -> Seen:
    said = news.announcement
    lie = Lie.REPLAYED if isinstance(news, Replayed) else Lie.EXPIRED
    return Seen(
        subject=str(said.key.key_id),
        lie=lie,
        name=said.name,
        key=str(said.key.key_id),
        addresses=tuple(map(str, said.addresses)),
        reason=f"it is {lie.value}",
    )
