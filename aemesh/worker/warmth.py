"""What this worker keeps warm: nodes for the groups to which its masters may send it.

A master names engines and modules, never programs: what starts is this machine's own.
The holder's wishes go first; another master's take what is left of the owner's number
of spares, so its modules cost nothing while the holder's fill that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh.model.job import NodeKind
from aemesh.model.names import module_untrusted, name_untrusted
from aemesh.protocol import wire
from aemesh.tasks.waiting import wait_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.model.key import KeyId
    from aemesh.net.links import Links
    from aemesh.worker.held import Held

_log = logging.getLogger(__name__)


class Warm(Protocol):
    """What starts processes before they are asked for; `aemesh.host.warmnodes`."""

    @property
    def changed(self) -> trio.Event:
        """Set when there are others than before, or they take other memory."""

    def told(self) -> tuple[int, int]:
        """Return how many wait, and the bytes of memory that they take."""

    def plain(self) -> tuple[NodeKind, ...]:
        """Return the kinds for masters that have not said which they want."""

    def want(self, kinds: Sequence[NodeKind]) -> None:
        """Have nodes of these kinds, the likeliest first."""


class Cold:
    """Keeps nothing warm."""

    changed = trio.Event()

    def told(self) -> tuple[int, int]:
        """Nothing waits."""
        return 0, 0

    def plain(self) -> tuple[NodeKind, ...]:
        """Nothing is wanted."""
        return ()

    def want(self, kinds: Sequence[NodeKind]) -> None:
        """Do nothing."""


class Warmth:
    """The wishes of one worker's masters; `run` it while the worker runs."""

    def __init__(self, held: Held, links: Links, warm: Warm) -> None:
        self._held = held
        self._links = links
        self._warm = warm
        self._wishes: dict[KeyId, tuple[NodeKind, ...]] = {}

    def __repr__(self) -> str:
        return f"<Warmth for {len(self._wishes)} masters>"

    def take(self, master: KeyId, body: wire.Warm) -> wire.Body:
        """Take in what a linked master may soon ask for, instead of what it said."""
        self._wishes[master] = tuple(map(_kind_untrusted, body.kinds))
        self._look()
        return wire.Done()

    async def run(self) -> None:
        """Follow the masters that come, go and hold us, until cancelled."""
        while True:
            changed, linked, warm = (
                self._held.changed,
                self._links.changed,
                self._warm.changed,
            )
            self._look()
            await wait_any(changed.wait, linked.wait, warm.wait)
            if warm.is_set():
                self._held.tell_changed()  # masters are told how much it is

    def _look(self) -> None:
        lease = self._held.tenancy.lease
        holder = None if lease is None else lease.master
        self._wishes = {k: v for k, v in self._wishes.items() if k in self._links}
        masters = sorted(self._links, key=lambda master: master != holder)
        plain = self._warm.plain()
        # A holder that named nothing wants plain nodes, before what others named.
        kinds = [kind for one in masters for kind in self._wishes.get(one, plain)]
        self._warm.want(tuple(dict.fromkeys(kinds or plain)))


def _kind_untrusted(kind: wire.WarmKind) -> NodeKind:
    engine = name_untrusted("engine", kind.engine)
    return NodeKind(engine, tuple(map(module_untrusted, kind.preload)))
