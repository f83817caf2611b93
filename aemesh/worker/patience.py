"""A worker without a master gives its machine, or its batch slot, back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from aemesh.errors import NobodyFoundError

if TYPE_CHECKING:
    from aemesh.net.links import Links
    from aemesh.worker.held import Held


class Waiting(Protocol):
    """A worker, as far as it may wait in vain."""

    links: Links
    held: Held


async def give_up(worker: Waiting, after: float) -> None:
    """Raise `NobodyFoundError` once no link was up for so many seconds.

    A lease that outlives its link is waited for: its jobs go on, and somebody may come
    back for them.
    """
    links, held = worker.links, worker.held
    while True:
        with trio.move_on_after(after) as scope:
            while not links:
                await links.changed.wait()
        if not scope.cancelled_caught:
            while links:
                await links.changed.wait()
        elif held.tenancy.lease is None:
            what = f"no master in {after:g} s"
            raise NobodyFoundError(
                what,
                why="none dialled us, and none that we may dial was heard of",
                hint="`aemesh worker --master HOST` names one",
            )
        else:
            await held.changed.wait()
