"""When workers that serve are moved for the sake of sharing: not at every flicker.

A worker whose link comes and goes would change what is best each time, and each time
others would be drained and moved for it.  So who serves is moved only when nothing has
changed for a while, and the more often that happened lately, the longer the while.
What a person asks for is done at once; a worker that is free is never kept waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from aemesh import limits

_NEVER = float("inf")


@dataclass(slots=True)
class Settling:
    """The rule, for one master; times are those of one clock that only rises."""

    _first_at: float = _NEVER  # of the changes that nobody was moved for yet
    _last_at: float = _NEVER
    _asked: bool = False
    _quiet_after: float = limits.SETTLE_AFTER
    _moved_at: float = -_NEVER

    def changed(self, now: float) -> None:
        """A worker or a group came, went or became another."""
        self._first_at = min(self._first_at, now)
        self._last_at = now

    def asked(self, now: float) -> None:
        """A person changed what is wanted."""
        self.changed(now)
        self._asked = True

    def due_at(self) -> float:
        """Return when to look whether others are to be moved; infinity for never."""
        if self._asked:
            return self._first_at
        # A link that never rests cannot put it off for ever.
        last_call = self._first_at + max(limits.SETTLE_CAP_AFTER, self._quiet_after)
        return min(self._last_at + self._quiet_after, last_call)

    def looked(self, now: float, *, moved: bool) -> None:
        """It was due, and somebody was moved or nobody."""
        if moved and not self._asked:
            calm = now - self._moved_at > limits.SETTLE_CAP_AFTER * 2
            longer = min(self._quiet_after * 2, limits.SETTLE_CAP_AFTER)
            self._quiet_after = limits.SETTLE_AFTER if calm else longer
            self._moved_at = now
        self._asked = False
        self._first_at = self._last_at = _NEVER
