"""What happened, kept and told: to the state file, the log, and whoever listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.policy.lograte import LogRate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aemesh.host.store import Store
    from aemesh.model.names import GroupName, NodeName
    from aemesh.model.view import EventView

_log = logging.getLogger(__name__)
_PAGE = 500


class History:
    """The master's history; readers wait for its news."""

    def __init__(self, store: Store, *, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self._news = trio.Event()
        self._strangers = LogRate(limits.STRANGER_EVENTS_PER_MINUTE)

    def add_of_stranger(
        self, kind: str, text: str, *, worker: NodeName | None = None
    ) -> None:
        """Write one line about somebody untrusted; beyond so many a minute, nothing."""
        turn = self._strangers.turn(now=trio.current_time())
        if turn.left_out:
            count = f"{turn.left_out} more events of strangers were left out"
            self.add("strangers.left-out", count)
        if turn.write:
            self.add(kind, text, worker=worker)

    def add(
        self,
        kind: str,
        text: str,
        *,
        worker: NodeName | None = None,
        group: GroupName | None = None,
    ) -> EventView:
        """Write one line, log it, and wake the readers."""
        event = self._store.add_event(
            at=self._wall(), kind=kind, text=text[:1000], worker=worker, group=group
        )
        # Whoever decides about trust says so to a person in words of its own.
        asked = kind == "trust.request"
        _log.log(logging.DEBUG if asked else logging.INFO, "%s", text)
        self._news.set()
        self._news = trio.Event()
        return event

    async def read(self, after: int, *, follow: bool) -> AsyncGenerator[EventView]:
        """Yield the history behind number `after`; with `follow`, then what comes.

        A slow reader is no burden: it reads on from the state file where it was.
        """
        while True:
            news = self._news
            events = self._store.events(after, most=_PAGE)
            for event in events:
                after = event.number
                yield event
            if not events:
                if not follow:
                    return
                await news.wait()
