"""Since when nobody uses a master.

Four kinds of use count: a request on the control socket, also one that is still being
answered; a command or the engine's work on a member; a client that lives, even if it
computes nothing for a while; a group that is coming up.  A script of `aemesh run`, a
detached one and a notebook are such clients: each has a folder of its own (see
`host.livefolder`), and no connection that a restarted master would have to miss.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError
from aemesh.master.activity import Activity
from aemesh.policy.idle import next_look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aemesh.master.group import Group

_log = logging.getLogger(__name__)


class Idleness:
    """What a master knows of its use."""

    def __init__(
        self, groups: Callable[[], Iterable[Group]], has_clients: Callable[[], bool]
    ) -> None:
        self.requests = Activity()
        self._groups = groups
        self._has_clients = has_clients
        self._seen_at = trio.current_time()  # a client, or a group that came up

    def __repr__(self) -> str:
        return f"<Idleness: {self.requests!r}>"

    async def wait(self, exit_after: float) -> None:
        """Return once nobody has used it for so many seconds, since it was made."""
        while True:
            wait = next_look(await self._idle(), exit_after)
            if wait is None:
                return
            await trio.sleep(wait)

    async def _idle(self) -> list[float]:
        idle: list[float] = []
        for group in list(self._groups()):
            idle += await self._idle_of(group)
        if self._has_clients():
            self._seen_at = trio.current_time()
        seen_after = trio.current_time() - self._seen_at
        return [*idle, seen_after, self.requests.idle_after()]

    async def _idle_of(self, group: Group) -> list[float]:
        if group.state == "opening":
            self._seen_at = trio.current_time()
        try:
            return list((await group.idle_after()).values())
        except AemeshError as error:
            # An engine that fails is opened anew, or dies; the next look will tell.
            _log.debug("group %s does not say who is idle: %s", group.name, error)
            return []
