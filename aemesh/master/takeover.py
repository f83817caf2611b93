"""Takes over from another master that is gone and named us as its heir.

Workers that it held tell us so, and where its keeper is, in its own signed words.  We
go on with the heads that run there, and then with the workers as they come.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from aemesh import limits
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
        self._heard: dict[tuple[Address, KeyId], None] = {}  # that may be held
        self._held: set[tuple[Address, KeyId]] = set()  # that were
        self._news = trio.Event()
        self._told = ""

    def __repr__(self) -> str:
        return f"<Takeover from {self._adopts}>"

    def hear(self, orphan: Orphan) -> None:
        """A worker tells of a lease that its master left."""
        keeper = orphan.keeper
        if keeper is None or keeper in self._held or orphan.master != self._adopts:
            return
        self._heard[keeper] = None
        self._news.set()

    async def run(self) -> None:
        """Take over once it is possible, and hold it until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for keeper in list(self._heard):
                await self._try(keeper)
            if self._heard:
                # A worker lost its master before the keeper did, or the keeper is out
                # of reach for a moment; nobody would tell us of it again.
                await trio.sleep(limits.TAKEOVER_AGAIN_AFTER)
                self._news.set()

    async def _try(self, keeper: tuple[Address, KeyId]) -> None:
        try:
            await self._hold(*keeper)
        except AemeshError as exc:
            text = f"what {self._adopts} left is not taken over: {exc}"
            if text != self._told:
                self._told = text
                self._history.add("master.no-takeover", text)
        else:
            del self._heard[keeper]
            self._held.add(keeper)

    async def _hold(self, address: Address, key_id: KeyId) -> None:
        async with open_keeper(self._place(address, key_id), inherits=True) as keeper:
            names = ", ".join(sorted(keeper.estates)) or "nothing"
            text = f"took over from {self._adopts}: {names}"
            self._history.add("master.takeover", text)
            self._opened(keeper)
            await keeper.link.wait_closed()
        _log.info("the keeper of %s is gone", self._adopts)
