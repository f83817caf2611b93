"""How many items of a map go to a worker at one time.

The problem: handing one item out costs some milliseconds, so a million items of a
microsecond must go in large batches; but a large batch of long items leaves all but one
worker without work at the end, and what is in it is lost with its worker.  Nobody
knows beforehand how long an item takes.  So the first batches have one item; a batch
that is done says how long its items took, and the next is as large as takes
`BATCH_AFTER`, but never so large that others would wait for it at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aemesh import limits

# What a batch is to take: forty times what handing it out costs, and no longer than a
# person notices at the end.
BATCH_AFTER = 0.2
# A guess from one quick item is a guess: it may be the empty one among long ones.
_GROWTH = 8
# To look costs some microseconds; a look too late costs its own time at most, of what a
# batch takes, or of what an item does if that is longer.
_LOOK_AFTER = 0.002
_LOOK_CAP_AFTER = 0.1
_LOOKS = 40
# What was measured last counts for so much: durations drift with the data.
_NEWEST = 0.5


@dataclass(slots=True)
class Batching:
    """The sizes of the batches of one map."""

    item_after: float | None = None  # seconds an item takes, as was measured
    largest: int = 0  # batch that is done

    def size(self, *, left: int, slots: int) -> int:
        """Return how many of the `left` items go into the next batch, at least one.

        `slots` is how many run at one time.
        """
        if self.item_after is None:
            return 1
        fits = math.floor(BATCH_AFTER / max(self.item_after, 1e-9))
        grown = _GROWTH * max(self.largest, 1)
        # With two batches to come for each, those who are done early take over.
        fair = math.ceil(left / (2 * max(slots, 1)))
        return max(1, min(fits, grown, fair, limits.RUN_BATCH_ITEMS))

    @property
    def look_after(self) -> float:
        """Seconds after which to look again whether a batch is done."""
        item_after = self.item_after or 0.0
        return min(max(item_after / _LOOKS, _LOOK_AFTER), _LOOK_CAP_AFTER)

    def took(self, items: int, after: float) -> None:
        """Learn from a batch that is done; all of it took `after` seconds."""
        if items < 1:
            return
        each = max(after, 0.0) / items
        known = self.item_after
        self.item_after = each if known is None else known + _NEWEST * (each - known)
        self.largest = max(self.largest, items)


def in_flight(slots: int) -> int:
    """Return how many batches are handed out: each runs one, and has one to come."""
    return 2 * max(slots, 1)
