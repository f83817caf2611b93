"""What a member that leaves may still do, and what moves first: the arithmetic.

Seconds and bytes come in, decisions go out; it knows neither Dask nor a clock, and
imports nothing of aemesh. `dask_departure.py` asks it again and again, so each answer
may rest on what is known at that moment.

The span that is left has two parts: first work, then moving. Moving begins as late as
it may, and a task is worth beginning only if its end falls into the first part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A measured bandwidth is that of a moment: others use the line, too.
MARGIN = 1.25
# From the order to copy to the scheduler's word that it is done, on a line that does
# nothing else; and for each piece the talk about it, which small ones are made of.
SETTLE_AFTER = 0.5
PIECE_AFTER = 0.002
# Nobody has seen such a task end yet. Dask takes it for half a second; one that is cut
# off is computed twice, so here it is taken for a long one.
UNKNOWN_AFTER = 30.0


@dataclass(frozen=True)
class Task:
    """A task that is with the member: it runs, or waits for its turn in its process."""

    key: object
    process: str
    takes_after: float | None  # as tasks of its kind did; None: none has ended yet
    ran_after: float | None = None  # None: it waits


@dataclass(frozen=True)
class Piece:
    """A result that only this member holds."""

    key: object
    nbytes: int
    cost_after: float  # seconds to compute it again; infinite if nobody could


@dataclass(frozen=True)
class Plan:
    """What to do with the span that is left."""

    needs_after: float  # seconds that moving takes
    work_after: float  # seconds until it has to begin; 0.0: now
    order: tuple[object, ...]  # pieces, those first that are worth most
    fits: int  # so many of them can be moved in time
    gives: tuple[object, ...]  # waiting tasks that are for others
    hopeless: frozenset[object]  # running tasks that cannot end in time


def make_plan(
    tasks: Sequence[Task], pieces: Iterable[Piece], *, left: float, rate: float
) -> Plan:
    """Return what to do in the `left` seconds, with `rate` bytes moving in each."""
    pieces = worth_first(pieces)
    needs = moving_after(pieces, rate)
    work = max(0.0, left - needs)
    return Plan(
        needs_after=needs,
        work_after=work,
        order=tuple(piece.key for piece in pieces),
        fits=count_fitting(pieces, left=left, rate=rate),
        gives=_gives(tasks, work_after=work),
        hopeless=_hopeless(tasks, left=left),
    )


def moving_after(pieces: Sequence[Piece], rate: float) -> float:
    """Return the seconds that moving these takes; none for nothing."""
    return _moving_after(len(pieces), sum(piece.nbytes for piece in pieces), rate)


def _moving_after(count: int, nbytes: int, rate: float) -> float:
    if not count:
        return 0.0
    return SETTLE_AFTER + count * PIECE_AFTER + nbytes / rate * MARGIN


def worth_first(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Return the pieces in the order of what a byte of them costs to compute again."""

    def worth(piece: Piece) -> tuple[float, int]:
        return (-piece.cost_after / max(piece.nbytes, 1), piece.nbytes)

    return tuple(sorted(pieces, key=worth))


def count_fitting(pieces: Sequence[Piece], *, left: float, rate: float) -> int:
    """Return how many of the first pieces can be moved in time."""
    nbytes = 0
    for count, piece in enumerate(pieces):
        nbytes += piece.nbytes
        if _moving_after(count + 1, nbytes, rate) > left:
            return count
    return len(pieces)


def may_begin(
    takes_after: float | None, *, queue_after: float, work_after: float
) -> bool:
    """Whether a task that waits `queue_after` for its turn ends in the time for work.

    `takes_after` is what tasks of its kind took, None if none has ended yet.
    """
    takes = UNKNOWN_AFTER if takes_after is None else takes_after
    return queue_after + takes <= work_after


def _gives(tasks: Sequence[Task], *, work_after: float) -> tuple[object, ...]:
    """Return the waiting tasks that would not end here in the time for work.

    Each process has one turn after the other; one that is given away takes none.
    """
    free_after: dict[str, float] = {}
    for task in tasks:
        if task.ran_after is not None:
            rest = _rest(task)
            ends = work_after if rest is None else rest
            free_after[task.process] = max(ends, free_after.get(task.process, 0.0))
    given = []
    for task in tasks:
        if task.ran_after is not None:
            continue
        queue = free_after.get(task.process, 0.0)
        if may_begin(task.takes_after, queue_after=queue, work_after=work_after):
            free_after[task.process] = queue + (task.takes_after or 0.0)
        else:
            given.append(task.key)
    return tuple(given)


def _hopeless(tasks: Iterable[Task], *, left: float) -> frozenset[object]:
    """Return the running tasks that cannot end and be moved in the time that is left.

    One that is over its time already may end at any moment: it is not given up.
    """
    return frozenset(
        task.key
        for task in tasks
        if (rest := _rest(task)) is not None and rest + SETTLE_AFTER > left
    )


def _rest(task: Task) -> float | None:
    """Return the seconds that a running task still takes; None if nobody knows."""
    if task.ran_after is None or task.takes_after is None:
        return None
    rest = task.takes_after - task.ran_after
    return rest if rest > 0.0 else None
