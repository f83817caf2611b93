"""Whose turn it is to hold a worker that several masters want.

When a lease ends while others want the worker, the master that had it waits until one
of them has taken it: else it would be back at once, for it is the first to know.  If
nobody comes, it may have the worker again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits

if TYPE_CHECKING:
    from aemesh.model.key import KeyId


class Turns:
    """One worker's wishes and turns; times are on trio's clock."""

    def __init__(self) -> None:
        self.wants: dict[KeyId, int] = {}  # by master that is linked, above 0 only
        self._waits: KeyId | None = None
        self._until = 0.0

    def __repr__(self) -> str:
        return f"<Turns {len(self.wants)} want it>"

    def want(self, master: KeyId, workers: int) -> bool:
        """A master wants so many workers in all; return whether that is news."""
        before = self.wants.pop(master, 0)
        if workers > 0:
            self.wants[master] = workers
        return before != workers

    def wanted_besides(self, holder: KeyId) -> dict[KeyId, int]:
        """Return what all but the holder want."""
        return {key: count for key, count in self.wants.items() if key != holder}

    def ended(self, holder: KeyId, now: float) -> None:
        """A lease of this master ended: others that want the worker have their turn."""
        if self.wanted_besides(holder):
            self._waits, self._until = holder, now + limits.TURN_AFTER

    def taken(self) -> None:
        """Somebody holds the worker: the turn is taken."""
        self._waits = None

    def waits(self, master: KeyId, now: float) -> bool:
        """Whether this master has to let others go first."""
        return (
            self._waits == master
            and now < self._until
            and bool(self.wanted_besides(master))
        )

    def next_at(self, now: float) -> float | None:
        """Return when a turn that nobody takes is over, None if there is none."""
        return self._until if self._waits is not None and now < self._until else None

    def check(self) -> None:
        """Assert what always holds."""
        assert all(count > 0 for count in self.wants.values())
