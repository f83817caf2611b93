"""The worker's own dials: to masters that it seeks, and to addresses that were typed.

Normally a master dials.  A worker that lets nobody in is dialled in vain, so it listens
for masters, gives each a head start, and then dials those that it is not linked to.
Whom it dials because of an announcement is for `aemesh.policy.outreach` to say; no such
meeting becomes a question to the owner.  What the owner typed is dialled always, and
asked about like any other.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.model.address import Address, Seed
from aemesh.model.key import KeyId
from aemesh.model.trust import Decision, Peer, Reason, Role, Verdict
from aemesh.net.doorman import Desk, DeskDoorman, Doorman
from aemesh.net.link import Closed, Ending
from aemesh.net.links import Links
from aemesh.net.shake import Channel, Shaker
from aemesh.net.transport import Network
from aemesh.policy.discovery import New, News, Updated, dialable
from aemesh.policy.redial import pause_after
from aemesh.tasks.waiting import wait_any

if TYPE_CHECKING:
    from aemesh.model.machine import Announcement
    from aemesh.protocol.hello import Purpose

_log = logging.getLogger(__name__)

# Serves a link until it ends; `Worker.serve_link`.
ServeLink = Callable[[Channel], Awaitable[Closed | None]]


class Finder(Protocol):
    """Where news of masters come from; `aemesh.net.discovery` or a list."""

    def news(self) -> AsyncIterator[News]:
        """Yield what is heard of masters, until cancelled."""


class Nobody:
    """A finder that hears of nobody."""

    def news(self) -> AsyncIterator[News]:
        """Return what has nothing to tell."""
        return self

    def __aiter__(self) -> AsyncIterator[News]:
        return self

    async def __anext__(self) -> News:
        await trio.sleep_forever()


@dataclass(slots=True, kw_only=True)
class Outreach:
    """One worker's way to its masters."""

    network: Network
    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    links: Links
    serve: ServeLink
    finder: Finder
    seeks: Callable[[KeyId], bool]
    meets: Callable[[KeyId], bool] = lambda _: False  # whether it is at our door
    dialable: Callable[[Address], bool] = dialable
    seeds: tuple[Seed, ...] = ()
    _approaches: dict[KeyId, _Approach] = field(default_factory=dict)
    _dialling: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(limits.DIALS_AT_ONCE)
    )

    async def run(self) -> None:
        """Dial whom we seek, until cancelled."""
        async with trio.open_nursery() as nursery:
            for seed in self.seeds:
                nursery.start_soon(_Planted(self, seed).run)
            nursery.start_soon(self._watch_trust)
            async for news in self.finder.news():
                if isinstance(news, New | Updated):
                    self._hear(news.announcement, nursery)

    def check(self) -> None:
        """Assert what always holds."""
        unknown = list(self.desk.strangers(self._approaches))
        assert len(unknown) <= limits.MASTERS_SOUGHT

    def _hear(self, said: Announcement, nursery: trio.Nursery) -> None:
        key_id = said.key.key_id
        approach = self._approaches.pop(key_id, None)
        if approach is None:
            if not self.seeks(key_id) and not self.desk.knows(key_id):
                return  # a stranger's word takes no room here
            self._make_room()
            approach = _Approach(self, key_id)
            nursery.start_soon(approach.run)
        self._approaches[key_id] = approach  # last: the first stranger is next to go
        approach.hear(tuple(filter(self.dialable, said.addresses)))

    def _make_room(self) -> None:
        strangers = list(self.desk.strangers(self._approaches))
        if len(strangers) >= limits.MASTERS_SOUGHT:
            self._approaches.pop(strangers[0]).scope.cancel()

    async def _watch_trust(self) -> None:
        while True:
            await self.desk.wait_change()
            for approach in self._approaches.values():
                approach.try_now()

    async def meet(
        self, address: Address, caller: _Caller, *, expected: KeyId | None = None
    ) -> Channel:
        """Dial and shake hands; raises what these raise."""
        if expected is not None and self.desk.knows(expected):
            connection = await self.network.dial(address)
        else:
            async with self._dialling:
                connection = await self.network.dial(address)
        return await self.shaker(caller).connect(connection, expected=expected)

    def caller(self, *, asks: bool) -> _Caller:
        """Return the doorman of a handshake; `asks` is whether the owner is asked."""
        return _Caller(self.desk, self.links, asks=asks)


@dataclass(slots=True, eq=False)
class _Approach:
    """Keeps us linked to one master that announces itself, if it does not do so."""

    outreach: Outreach
    key_id: KeyId
    addresses: tuple[Address, ...] = ()
    news: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def hear(self, addresses: tuple[Address, ...]) -> None:
        """It says that it listens here; where it was before is tried after that."""
        older = tuple(one for one in self.addresses if one not in addresses)
        self.addresses = (addresses + older)[: 2 * limits.ANNOUNCED_ADDRESSES]
        self.try_now()

    def try_now(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def run(self) -> None:
        with self.scope:
            failures = 0
            while True:
                await self._wait_turn()
                news = self.news
                try:
                    closed = await self._once()
                except RefusedError as exc:
                    _log.info("no link to master %s: %s", self.key_id, exc)
                    await self._wait_news(news)
                except AemeshError as exc:
                    _log.debug("no link to master %s: %s", self.key_id, exc)
                    failures += 1
                    await self._pause(news, failures)
                else:
                    failures = 0
                    if closed is not None and closed.ending is Ending.BYE:
                        await self._wait_news(self.news)

    async def _once(self) -> Closed | None:
        reasons: list[str] = []
        caller = self.outreach.caller(asks=False)
        for address in self.addresses:
            try:
                channel = await self.outreach.meet(
                    address, caller, expected=self.key_id
                )
            except AemeshError as exc:
                if caller.met == self.key_id:
                    raise  # it was the master; what it, or we, said is the news
                reasons.append(str(exc))
                continue
            return await self.outreach.serve(channel)
        what = "the master is not reached"
        raise UnreachableError(what, why="; ".join(reasons) or "it named no address")

    async def _wait_turn(self) -> None:
        """Wait until we are apart, the master's head start is over, and we seek it."""
        links = self.outreach.links
        while True:
            changed, news = links.changed, self.news
            if self.key_id in links:
                await changed.wait()
            elif not self.outreach.seeks(self.key_id):
                await wait_any(changed.wait, news.wait)
            else:
                with trio.move_on_after(limits.HEAD_START_AFTER) as scope:
                    while self.key_id not in links:
                        await links.changed.wait()
                # One that is at our door may wait there for a person, who would be
                # asked again about the same master.
                at_door = self.outreach.meets(self.key_id)
                seeks = self.outreach.seeks(self.key_id)
                if scope.cancelled_caught and seeks and not at_door:
                    return

    async def _wait_news(self, news: trio.Event) -> None:
        """After a no, wait until it is heard of again; not at once, though.

        Whoever announces a thousand things a second is dialled no more often for it.
        """
        await trio.sleep(limits.REDIAL_CAP_AFTER)
        changed = self.outreach.links.changed
        await wait_any(news.wait, changed.wait)

    async def _pause(self, news: trio.Event, failures: int) -> None:
        """Wait before the next try; strangers are tried again when they are heard."""
        if not self.outreach.desk.knows(self.key_id):
            await self._wait_news(news)
            return
        with trio.move_on_after(pause_after(failures)):
            await news.wait()


@dataclass(slots=True, eq=False)
class _Planted:
    """Keeps us linked to whoever answers at an address that the owner typed."""

    outreach: Outreach
    seed: Seed

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._once()
                failures = 1
            except _AlreadyLinkedError as exc:
                await self._wait_apart(exc.key_id)
                continue
            except RefusedError as exc:
                _log.warning("the master at %s: %s", self.seed, exc)
                failures = limits.REDIALS + 1  # nobody would say when to come again
            except AemeshError as exc:
                failures += 1
                if failures == 1:
                    _log.warning("no master at %s yet: %s", self.seed, exc)
            changed = self.outreach.desk.wait_change
            with trio.move_on_after(pause_after(failures)):
                await changed()

    async def _once(self) -> None:
        outreach, seed = self.outreach, self.seed
        addresses = await outreach.network.resolve(seed.host, seed.port)
        for number, address in enumerate(addresses, 1):
            try:
                channel = await outreach.meet(address, outreach.caller(asks=True))
            except UnreachableError:
                if number == len(addresses):
                    raise
                continue
            await outreach.serve(channel)
            return

    async def _wait_apart(self, key_id: KeyId) -> None:
        links = self.outreach.links
        while key_id in links:
            await links.changed.wait()


class _AlreadyLinkedError(RefusedError):
    """Somebody was quicker: a link to this master is up."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(f"a link to {peer.name} is up")
        self.key_id = peer.key_id


class _Caller(DeskDoorman):
    """The doorman of a handshake that the worker began."""

    def __init__(self, desk: Desk, links: Links, *, asks: bool) -> None:
        super().__init__(desk)
        self._links = links
        self._asks = asks
        self._agreed = False
        self.met: KeyId | None = None  # who answered

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,  # noqa: ARG002 - the protocol's
        expected: KeyId | None,
    ) -> Verdict:
        """Return the desk's verdict; the owner is asked only about what he typed."""
        self.met = peer.key_id
        if peer.role is Role.MASTER and peer.key_id in self._links and not self._agreed:
            # As at the master's: who said ok goes on, and one of two links stays.
            raise _AlreadyLinkedError(peer)
        verdict = self.desk.judge(peer, expected=expected, asks=self._asks)
        if verdict.decision is Decision.PENDING and not self._asks:
            told = "the owner is asked when you dial"
            verdict = Verdict(Decision.NO, Reason.UNKNOWN, told)
        self._agreed = verdict.decision is Decision.OK
        return verdict
