"""The master's announcement: there while it wants workers, and gone while it does not.

Who is linked stays so: a worker too many is the next one in place of a lost one.  But
nobody more is dialled, and who dials is told that there are enough.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.master.parts import Announcer


class Invitation:
    """Whether workers are to come; `look` again whenever that may have changed."""

    def __init__(
        self, has_enough: Callable[[], bool], wants_again: Callable[[], None]
    ) -> None:
        self._has_enough = has_enough
        self._wants_again = wants_again
        self._enough = False
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Invitation: {'enough' if self._enough else 'more are welcome'}>"

    def look(self) -> None:
        """A group, or what it wants, is another: see whether there are enough."""
        enough = self._has_enough()
        if enough == self._enough:
            return
        self._enough = enough
        self._changed.set()
        self._changed = trio.Event()
        if not enough:
            self._wants_again()

    async def run(self, announcer: Announcer, port: int) -> None:
        """Announce while there are not enough, until cancelled."""
        while True:
            changed = self._changed
            async with trio.open_nursery() as nursery:
                if not self._enough:
                    nursery.start_soon(partial(announcer.announce, port=port))
                await changed.wait()
                nursery.cancel_scope.cancel()
