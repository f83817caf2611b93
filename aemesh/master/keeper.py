"""The link to the keeper: who runs a master's heads, and remembers what it left.

A keeper is a worker of one master, beside it, that nobody else sees.  It takes one
lease for all groups and runs the engines' heads under it, as any worker runs jobs; so
they outlive the master as the members' jobs do, within the lease's time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.master.kept import Estate, read_estates_untrusted
from aemesh.master.remote import ask
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName, JobId, job_id_untrusted
from aemesh.net.doorman import Desk, DeskDoorman, Doorman
from aemesh.net.link import Link, open_link
from aemesh.net.shake import Channel, Shaker
from aemesh.net.transport import Network
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)

# What the keeper's one lease is for: the heads of all groups.
HEADS = GroupName("heads")

# What it means for a person, behind the reason.
WITHOUT_KEEPER = (
    "A master that crashes now takes its engines' heads, and what they compute, along."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPlace:
    """Where a keeper is, and how to prove who we are to each other."""

    network: Network
    address: Address
    key_id: KeyId
    shaker: Callable[[Doorman], Shaker]
    desk: Desk

    async def dial(self, purpose: Purpose) -> Channel:
        """Return a channel to the keeper; raises as `Shaker.connect`."""
        connection = await self.network.dial(self.address)
        shaker = self.shaker(DeskDoorman(self.desk))
        return await shaker.connect(connection, expected=self.key_id, purpose=purpose)


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Keeper:
    """A keeper that holds our lease; made by `open_keeper`."""

    place: KeeperPlace
    link: Link
    csr: str
    generation: int
    port: int  # where our heirs reach it, 0 if they do not
    estates: dict[GroupName, Estate] = field(default_factory=dict)  # whose heads run
    left: frozenset[JobId] = frozenset()  # jobs that ran when we came
    on_lost: Callable[[], None] = _nothing  # called once, before streams end for that
    # Weak: one that its job is done with is nobody's to keep.
    _streams: WeakSet[trio.abc.Stream] = field(default_factory=WeakSet)

    async def dial_stream(self) -> Channel:
        """Return a channel for a job's stream."""
        channel = await self.place.dial(Purpose.STREAM)
        self._streams.add(channel.connection.stream)
        return channel

    async def watch(self) -> None:
        """When the keeper is lost, so are the heads: end their streams."""
        await self.link.wait_closed()
        self._lose()
        with trio.CancelScope(shield=True):  # closing does not wait
            for stream in list(self._streams):
                await trio.aclose_forcefully(stream)

    def let_go(self) -> None:
        """Part with the keeper, without a good-bye: a head's stream broke."""
        self._lose()
        self.link.abandon("a head's stream broke")

    def _lose(self) -> None:
        on_lost, self.on_lost = self.on_lost, _nothing
        on_lost()

    async def keep_only(self, groups: Mapping[GroupName, str]) -> None:
        """End and forget what was left of other groups, or of other engines."""
        wanted = {
            name: estate
            for name, estate in self.estates.items()
            if groups.get(name) == estate.engine
        }
        useful = {job for estate in wanted.values() for job in estate.heads}
        try:
            await self._end_jobs(self.left - useful)
            for name in self.estates.keys() - wanted.keys():
                await self.keep(name, "")
        except AemeshError as exc:
            _log.warning("what was left is not ended: %s", exc)
        self.left = frozenset()
        self.estates = wanted

    async def end(self, group: GroupName) -> None:
        """End and forget what was left of one group."""
        estate = self.estates.pop(group, None)
        if estate is not None:
            await self._end_jobs(estate.heads)
            await self.keep(group, "")

    async def _end_jobs(self, jobs: Iterable[JobId]) -> None:
        for job in jobs:
            body = wire.End(job=job, term_after=limits.TERM_AFTER)
            within = limits.TERM_AFTER + limits.ANSWER_AFTER
            await ask(self.link, body, wire.Done, within=within)

    async def keep(self, key: str, data: str) -> None:
        """Have an entry kept, or it and all beneath it forgotten, without `data`."""
        body = wire.Keep(key=key, data=data)
        await ask(self.link, body, wire.Done, within=limits.ANSWER_AFTER)


class _Told:
    """What a keeper tells when it is linked."""

    def __init__(self) -> None:
        self.facts: wire.WorkerFacts | None = None
        self.orphaned: wire.Orphaned | None = None
        self._came = trio.Event()

    async def handle(self, link: Link, body: wire.Body) -> wire.Body | None:
        """Take note of the keeper's facts, and of the lease that it still holds."""
        del link
        match body:
            case wire.Orphaned():
                self.orphaned = body
            case wire.WorkerFacts():
                self.facts = body
                self._came.set()
            case _:
                return wire.Unsupported(what=wire.NAMES[type(body)])
        return None

    async def wait(self) -> wire.WorkerFacts:
        """Return the facts when they have come; what is orphaned comes before."""
        with trio.move_on_after(limits.HELLO_AFTER):
            await self._came.wait()
        if self.facts is None:
            msg = "the keeper does not tell what it is"
            raise UnreachableError(msg)
        return self.facts


@asynccontextmanager
async def open_keeper(
    place: KeeperPlace,
    *,
    kept_after: float = 0.0,
    heirs: tuple[KeyId, ...] = (),
    inherits: bool = False,
) -> AsyncIterator[Keeper]:
    """Hold the keeper while the block lasts; then let it go, and it ends.

    With `inherits` it is another master's, and taken only with what that one left.
    Raises `RefusedError` when another master has adopted what it keeps.
    """
    told = _Told()
    channel = await place.dial(Purpose.CONTROL)
    async with open_link(channel, told.handle) as link, open_crew() as crew:
        facts = await told.wait()
        terms = _Terms(kept_after, tuple(map(str, heirs)))
        keeper = await _take(place, link, told.orphaned, facts=facts, terms=terms)
        if keeper is None and inherits:
            what = "there is nothing to take over"
            raise RefusedError(what, why="that master is there, or left nothing")
        if keeper is None:
            keeper = await _assign(place, link, facts, terms=terms)
        crew.start_soon(keeper.watch)
        yield keeper
        await _release(keeper)
        crew.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Terms:
    """Of a lease: how long it is kept without us, and for whom."""

    kept_after: float
    heirs: tuple[str, ...]


async def _assign(
    place: KeeperPlace, link: Link, facts: wire.WorkerFacts, *, terms: _Terms
) -> Keeper:
    generation = facts.generation + 1
    body = wire.Assign(
        group=HEADS,
        generation=generation,
        kept_after=terms.kept_after,
        heirs=terms.heirs,
    )
    try:
        done = await ask(link, body, wire.Assigned, within=limits.ANSWER_AFTER)
    except AemeshError as exc:
        what = "the engines of this master were adopted by another master"
        hint = "go on there; or stop it, and start this one again"
        raise RefusedError(what, why=str(exc), hint=hint) from exc
    return Keeper(place, link, done.csr, generation, done.port)


async def _take(
    place: KeeperPlace,
    link: Link,
    orphaned: wire.Orphaned | None,
    *,
    facts: wire.WorkerFacts,
    terms: _Terms,
) -> Keeper | None:
    """Go on with the lease that the keeper holds for us, or return None."""
    if orphaned is None or orphaned.generation != facts.generation:
        return None
    body = wire.Adopt(
        group=orphaned.group,
        generation=orphaned.generation,
        kept_after=terms.kept_after,
        heirs=terms.heirs,
    )
    done = await ask(link, body, wire.Assigned, within=limits.ANSWER_AFTER)
    keeper = Keeper(place, link, done.csr, orphaned.generation, done.port)
    entries: list[tuple[str, str]] = []
    after = ""
    while True:
        wish = wire.Recall(after=after)
        page = await ask(link, wish, wire.Recalled, within=limits.ANSWER_AFTER)
        entries += ((one.key, one.data) for one in page.entries)
        if not page.entries or len(entries) > limits.KEPT_ENTRIES:
            break
        after = page.entries[-1].key
    keeper.left = running = frozenset(map(job_id_untrusted, orphaned.jobs))
    for name, estate in read_estates_untrusted(entries).items():
        estate.heads = tuple(job for job in estate.heads if job in running)
        if estate.heads:
            keeper.estates[name] = estate
        else:
            await keeper.keep(name, "")
    return keeper


async def _release(keeper: Keeper) -> None:
    body = wire.Release(generation=keeper.generation, term_after=limits.TERM_AFTER)
    try:
        await ask(keeper.link, body, wire.Done, within=limits.ANSWER_AFTER)
    except AemeshError as exc:
        _log.debug("the keeper was not released: %s", exc)
    keeper.link.close("the master ends")
