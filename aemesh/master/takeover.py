"""Takes over from another master that is gone and named us as its heir.

Workers that it held tell us so, and where its keeper is, in its own signed words.  We
go on with the heads that run there, and then with the workers as they come.

A keeper that we hold is on another machine, and the line to it may break.  Then its
groups are *awaited*: what runs is left as it is, while the keeper is dialled again, as
long as it waits for us.  The same is done by a process of ours that comes after this
one, for the store remembers which groups were inherited from where.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError
from aemesh.master.keeper import open_keeper
from aemesh.net.link import Closed, Ending
from aemesh.policy.redial import pause_after
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aemesh.master.history import History
    from aemesh.master.keeper import Keeper, KeeperPlace
    from aemesh.model.address import Address
    from aemesh.model.group import Orphan
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName

    Place = tuple[Address, KeyId]

_log = logging.getLogger(__name__)


class Heritage(Protocol):
    """The groups of a master that takes over; the master itself."""

    def take_over(
        self, at: Place, keeper: Keeper, *, awaited: frozenset[GroupName]
    ) -> frozenset[GroupName]:
        """Go on with the groups of a keeper; return which."""

    def suspend(self, groups: frozenset[GroupName]) -> None:
        """Leave groups as they run: their keeper is out of reach."""

    def begin_anew(self, groups: frozenset[GroupName]) -> None:
        """Open groups anew whose heads nobody goes on with."""


class Takeover:
    """What a master does about the keepers of others; `run` it."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        adopts: KeyId | None,
        place: Callable[[Address, KeyId], KeeperPlace],
        heritage: Heritage,
        *,
        history: History,
        inherited: Mapping[GroupName, Place],
        kept_after: float,
        heirs: tuple[KeyId, ...] = (),
    ) -> None:
        self._adopts = adopts
        self._place = place
        self._heritage = heritage
        self._history = history
        self._kept_after = kept_after
        self._heirs = heirs
        self._awaited: dict[Place, frozenset[GroupName]] = {
            at: frozenset(name for name, one in inherited.items() if one == at)
            for at in inherited.values()
        }
        self._known: set[Place] = set(self._awaited)  # that are held, or dialled
        self._heard: list[Place] = []
        self._news = trio.Event()
        self.changed = trio.Event()  # whether groups are awaited
        self._told = ""

    def __repr__(self) -> str:
        return f"<Takeover from {self._adopts}, {len(self._known)} keepers>"

    def awaits(self, name: GroupName) -> bool:
        """Whether the head of this group may still be found to go on."""
        return any(name in groups for groups in self._awaited.values())

    def hear(self, orphan: Orphan) -> None:
        """A worker tells of a lease that its master left."""
        at = orphan.keeper
        if at is None or at in self._known or orphan.master != self._adopts:
            return
        self._known.add(at)
        self._heard.append(at)
        self._news.set()

    async def run(self) -> None:
        """Take over once it is possible, and hold it until cancelled."""
        async with trio.open_nursery() as nursery:
            for at in self._known:
                nursery.start_soon(self._follow, at)
            while True:
                await self._news.wait()
                self._news = trio.Event()
                while self._heard:
                    nursery.start_soon(self._follow, self._heard.pop())

    async def _follow(self, at: Place) -> None:
        """Hold a keeper, again and again, until it has nothing for us any more."""
        failures = 0
        until = trio.current_time() + self._kept_after if at in self._awaited else None
        while True:
            try:
                closed = await self._hold(at)
            except AemeshError as exc:
                failures += 1
                self._tell(f"what {self._of(at)} left is not taken over: {exc}")
                if until is not None and isinstance(exc, RefusedError):
                    break
            else:
                if closed.ending is Ending.BYE:
                    break  # it ends
                failures = 0
                until = trio.current_time() + self._kept_after
            if trio.current_time() >= (math.inf if until is None else until):
                break
            # One that we never had may be its master's still, who is there.
            first = limits.TAKEOVER_AGAIN_AFTER
            await trio.sleep(first if until is None else pause_after(failures))
        self._known.discard(at)
        self._give_up(at)

    async def _hold(self, at: Place) -> Closed:
        place = self._place(*at)
        opening = open_keeper(
            place, kept_after=self._kept_after, heirs=self._heirs, inherits=True
        )
        async with opening as keeper, open_crew() as crew:
            awaited = self._awaited.get(at, frozenset())
            groups = self._heritage.take_over(at, keeper, awaited=awaited)
            crew.start_soon(self._end_others, keeper, groups)
            keeper.on_lost = lambda: self._lose(at, groups)
            what = "goes on with what it had" if awaited else "took over"
            names = ", ".join(sorted(groups)) or "nothing"
            text = f"{what} from {self._of(at)}: {names}"
            self._told = ""
            self._history.add("master.takeover", text)
            self._settle(at)
            closed = await keeper.link.wait_closed()
            crew.cancel_scope.cancel()
        _log.info("the keeper at %s: %s", at[0], closed.ending.value)
        return closed

    async def _end_others(self, keeper: Keeper, taken: frozenset[GroupName]) -> None:
        """End heads that nobody goes on with, when their lease's grace is over."""
        await trio.sleep(self._kept_after)
        for name in keeper.estates.keys() - taken:
            with suppress(AemeshError):
                await keeper.end(name)
                _log.info("the head of %s was taken over by nobody: ended", name)

    def _lose(self, at: Place, groups: frozenset[GroupName]) -> None:
        self._awaited[at] = groups
        self._heritage.suspend(groups)

    def _give_up(self, at: Place) -> None:
        groups = self._awaited.get(at, frozenset())
        if groups:
            names = ", ".join(sorted(groups))
            text = f"the keeper at {at[0]} is given up; {names}: begun anew"
            self._history.add("master.given-up", text)
        self._settle(at)
        self._heritage.begin_anew(groups)

    def _settle(self, at: Place) -> None:
        self._awaited.pop(at, None)
        self.changed.set()
        self.changed = trio.Event()

    def _of(self, at: Place) -> str:
        return str(self._adopts or f"the keeper at {at[0]}")

    def _tell(self, text: str) -> None:
        """Tell each reason once."""
        if text != self._told:
            self._told = text
            self._history.add("master.no-takeover", text)
