"""Takes over from another master that is gone and named us as its heir.

Workers that it held tell us so, and where its keeper is, in its own signed words.  We
go on with the heads that run there, and then with the workers as they come.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError
from aemesh.master.keeper import open_keeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.master.history import History
    from aemesh.master.keeper import Keeper, KeeperPlace
    from aemesh.model.address import Address
    from aemesh.model.group import Orphan
    from aemesh.model.key import KeyId

_log = logging.getLogger(__name__)


class Takeover:
    """What a master that was started to take over does about it."""

    def __init__(
        self,
        adopts: KeyId,
        place: Callable[[Address, KeyId], KeeperPlace],
        *,
        history: History,
        opened: Callable[[Keeper], None],
    ) -> None:
        self._adopts = adopts
        self._place = place
        self._history = history
        self._opened = opened
        self._heard: tuple[Address, KeyId] | None = None
        self._news = trio.Event()
        self._tried: set[tuple[Address, KeyId]] = set()

    def __repr__(self) -> str:
        return f"<Takeover from {self._adopts}>"

    def hear(self, orphan: Orphan) -> None:
        """A worker tells of a lease that its master left."""
        keeper = orphan.keeper
        if orphan.master == self._adopts and keeper not in {None, *self._tried}:
            self._heard = keeper
            self._news.set()

    async def run(self) -> None:
        """Take over once it is possible, and hold it until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            assert self._heard is not None
            self._tried.add(self._heard)
            try:
                await self._hold(*self._heard)
            except AemeshError as exc:
                text = f"what {self._adopts} left is not taken over: {exc}"
                self._history.add("master.no-takeover", text)

    async def _hold(self, address: Address, key_id: KeyId) -> None:
        async with open_keeper(self._place(address, key_id), inherits=True) as keeper:
            names = ", ".join(sorted(keeper.estates)) or "nothing"
            text = f"took over from {self._adopts}: {names}"
            self._history.add("master.takeover", text)
            self._opened(keeper)
            await keeper.link.wait_closed()
        _log.info("the keeper of %s is gone", self._adopts)
