"""The ledger for many at one time: what arrives together is written together.

One thread at a time works at the ledger.  Who comes meanwhile waits, and the next one
to have its turn takes all that wait with it: one sync of the disk for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from aemesh import limits
from aemesh.errors import AemeshError
from aemesh.model.run import Order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from aemesh.host.ledger.ledger import Ledger
    from aemesh.model.names import GroupName
    from aemesh.model.run import ItemId, ItemView, RunKey, RunName, RunView

_T = TypeVar("_T")
_PAGE = 500


@dataclass(slots=True, eq=False)
class _Waiting:
    """An order that is to be written, and what came of it."""

    order: Order
    done: bool = False
    error: AemeshError | None = field(default=None)


class Clerk:
    """Asks the ledger, and writes into it, without holding the master up."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = trio.Lock()
        self._waiting: list[_Waiting] = []
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Clerk: {len(self._waiting)} orders wait>"

    async def runs(self) -> list[RunView]:
        """Return every run, the one used last first."""
        return await self._ask(self._ledger.runs)

    async def run(self, group: GroupName, key: RunKey) -> RunView:
        """Return a run, or raise `UnknownRunError`."""
        return await self._ask(self._ledger.run, group, key)

    async def open_run(  # noqa: PLR0913 - what a run is, by name
        self,
        group: GroupName,
        key: RunKey,
        *,
        fingerprint: str,
        title: str,
        total: int,
        fresh: bool,
    ) -> RunView:
        """Go on with a run, or begin it; raises `OtherWorkError`."""
        opened = partial(
            self._ledger.open_run,
            group,
            key,
            fingerprint=fingerprint,
            title=title[: limits.RUN_TITLE_LENGTH],
            total=total,
            fresh=fresh,
        )
        view = await self._ask(opened)
        if fresh:
            self._tell()  # who follows the life that is over hears that it is
        return view

    async def drop(self, group: GroupName, key: RunKey) -> None:
        """Remove a run and all it has."""
        await self._ask(self._ledger.drop, group, key)
        self._tell()

    async def apply(self, order: Order) -> None:
        """Write an order; returns once it is on the disk, or raises why it is not."""
        mine = _Waiting(order)
        self._waiting.append(mine)
        try:
            async with self._turn:
                if not mine.done:
                    await self._write_waiting()
        finally:
            if not mine.done:  # cancelled, or a bug of ours: nobody hears of it
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error

    async def _write_waiting(self) -> None:
        """Write all that waits; if it comes to nothing it goes on waiting."""
        together = self._waiting.copy()
        told = await self._do(self._ledger.apply, [one.order for one in together])
        for one, error in zip(together, told, strict=True):
            one.done, one.error = True, error
        # Some may have been cancelled meanwhile, and others have come.
        self._waiting = [one for one in self._waiting if not one.done]
        self._tell()

    async def known(self, run: RunName, ids: Sequence[ItemId]) -> list[ItemId]:
        """Return those of these items that are committed."""
        return await self._ask(self._ledger.known, run, ids)

    async def values(self, run: RunName, items: Sequence[ItemId]) -> list[bytes | None]:
        """Return values of the first of these items; None for what is not committed."""
        return await self._ask(self._ledger.values, run, items)

    async def state(self, run: RunName, item: ItemId) -> bytes | None:
        """Return the last checkpoint of an item that is in the middle, or None."""
        return await self._ask(self._ledger.state, run, item)

    async def items(
        self, run: RunName, after: int, *, follow: bool
    ) -> AsyncGenerator[list[ItemView]]:
        """Yield pages of what was committed behind `after`; with `follow`, what comes.

        Raises `UnknownRunError`, also when the run is removed meanwhile.
        """
        while True:
            news = self._news
            page = await self._ask(partial(self._ledger.items, most=_PAGE), run, after)
            if page:
                after = page[-1].number
                yield page
            elif follow:
                await news.wait()
            else:
                return

    async def _ask(self, call: Callable[..., _T], *args: object) -> _T:
        async with self._turn:
            return await self._do(call, *args)

    async def _do(self, call: Callable[..., _T], *args: object) -> _T:
        if self._ledger.is_on_disk:
            return await trio.to_thread.run_sync(call, *args)
        await trio.lowlevel.checkpoint()
        return call(*args)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
