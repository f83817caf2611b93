"""An engine that is up, asked such that a bug of its plug-in is an error of the engine.

What an engine need not know how to do is asked for here, too, and has an answer if it
does not.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError, EngineError
from aemesh.plugin import Departing, Idling, Showing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aemesh.model.group import Haste, Progress, Receipt
    from aemesh.plugin import Member, Page, RunningEngine

_log = logging.getLogger(__name__)


class Plugged:
    """A running engine by its name; each method raises `EngineError` for its bugs."""

    def __init__(self, name: str, running: RunningEngine) -> None:
        self.name = name
        self._running = running

    def __repr__(self) -> str:
        return f"<Plugged {self.name}>"

    async def add(self, member: Member) -> None:
        """Bring it up on a member; return when it can take work."""
        with self._faults(f"adding {member.name}"):
            await self._running.add(member)

    async def lost(self, member: Member) -> None:
        """Have it go on without a member that is gone."""
        with self._faults(f"losing {member.name}"):
            await self._running.lost(member)

    async def retire(self, member: Member, *, by_after: float, haste: Haste) -> Receipt:
        """Have it move work and data off a member, for so many seconds at most."""
        with self._faults(f"retiring {member.name}"):
            return await self._running.retire(member, by_after=by_after, haste=haste)

    async def expect(self, member: Member, *, by_after: float | None) -> bool:
        """Tell it when a member leaves, or that it stays; False: it cannot plan."""
        running: object = self._running
        if not isinstance(running, Departing):
            return False
        with self._faults(f"expecting {member.name} to leave"):
            await running.expect(member, by_after=by_after)
        return True

    async def progress(self, member: Member) -> Progress | None:
        """Return how far a member's departure is, if it tells."""
        running: object = self._running
        if not isinstance(running, Departing):
            return None
        with self._faults(f"telling how {member.name} leaves"):
            return await running.progress(member)

    async def idle_after(self) -> Mapping[str, float] | None:
        """Return seconds since each member's last work, by label, if it tells."""
        running: object = self._running
        if not isinstance(running, Idling):
            return None
        with self._faults("telling who is idle"):
            return await running.idle_after()

    async def open_page(self) -> Page:
        """Open a connection to its web page; raises `EngineError` without one."""
        running: object = self._running
        if not isinstance(running, Showing):
            msg = f"engine {self.name} has no page to be shown"
            raise EngineError(msg)
        with self._faults("opening its page"):
            return await running.open_page()

    def connect_info(self) -> Mapping[str, str]:
        """Return what a client's environment needs."""
        return self._running.connect_info()

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        """Make an error of the engine's out of whatever its plug-in raises."""
        try:
            yield
        except AemeshError:
            raise
        except trio.TooSlowError as exc:  # of a time that it set itself
            text = f"engine {self.name} was too slow when {what}"
            raise EngineError(text) from exc
        except Exception as exc:
            _log.exception("engine %s met a bug when %s", self.name, what)
            text = f"engine {self.name} met a bug when {what}"
            raise EngineError(text, why=type(exc).__name__) from exc
