"""Which spares to have: so many, of the kinds that are wanted, the likeliest first.

A spare that nobody wants any more is not ended before the one that takes its place is
warm: until then it is the second best that there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Change(Generic[K]):
    """What to start, in order, and which of those that are there, by index, to end."""

    start: tuple[K, ...]
    end: tuple[int, ...]


def plan_spares(
    wanted: Sequence[K], present: Sequence[tuple[K, bool]], *, count: int
) -> Change[K]:
    """Return what makes `count` spares of the kinds that are wanted.

    `present` tells of each spare its kind, and whether it is warm.  With more kinds
    than `count` the last ones have none; with fewer, each has several in turn.
    """
    missing = list(islice(cycle(wanted), count)) if wanted else []
    surplus, cold = [], False
    for index, (kind, warm) in enumerate(present):
        if kind in missing:
            missing.remove(kind)
            cold = cold or not warm
        else:
            surplus.append(index)
    waits = bool(missing) or cold
    return Change(tuple(missing), () if waits else tuple(surplus))
