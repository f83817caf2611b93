"""Which workers are set aside for a while: black holes, and links that flap.

A machine on which everything fails at once is always free, and so gets one piece of
work after the other and ruins them all.  After some quick failures in a row, while
others do well, it gets none for a time that grows with each time this happens.  If
the others fail as well, it is not the machine, and nobody is set aside.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from aemesh import limits


@dataclass(slots=True)
class Standing:
    """What one worker has done lately; times are those of one clock that only rises."""

    why: str = ""  # it was set aside, the last time
    until: float = float("-inf")
    _failures: int = 0  # quick ones, in a row
    _times: int = 0  # that it was set aside, not long ago
    _losses: deque[float] = field(
        default_factory=lambda: deque(maxlen=limits.LOSSES_ENOUGH)
    )

    def is_aside(self, now: float) -> bool:
        """Whether it gets no work now."""
        return now < self.until

    def failed(self, what: str, *, now: float, took: float, others_well: bool) -> bool:
        """It failed `took` seconds after it was asked; return whether that is enough.

        A failure that took its time, or that others have as well, says nothing of it.
        """
        if took > limits.FAILS_QUICKLY_AFTER:
            self.did_well()
            return False
        if not others_well:
            return False
        self._failures += 1
        if self._failures < limits.FAILURES_ENOUGH:
            return False
        self._set_aside(f"{self._failures} quick failures, the last: {what}", now)
        return True

    def did_well(self) -> None:
        """It did what it was asked to: failures before it are no longer in a row."""
        self._failures = 0

    def lost(self, *, now: float) -> bool:
        """Its link broke; return whether that was once too often."""
        self._losses.append(now)
        first = self._losses[0]
        enough = len(self._losses) == limits.LOSSES_ENOUGH
        if not enough or now - first > limits.LOSSES_WITHIN:
            return False
        self._losses.clear()
        times, span = limits.LOSSES_ENOUGH, limits.LOSSES_WITHIN
        self._set_aside(f"it was lost {times} times in {span:g} s", now)
        return True

    @property
    def times(self) -> int:
        """How often it was set aside, not long ago."""
        return self._times

    def restore(self, why: str, *, until: float, times: int, now: float) -> None:
        """Go on where a former master's account of it ended."""
        self.why = why
        self.until = min(until, now + limits.ASIDE_CAP_AFTER)
        self._times = times

    def readmit(self) -> None:
        """A person says that it is well again."""
        self.until = float("-inf")
        self._failures = self._times = 0
        self._losses.clear()

    def _set_aside(self, why: str, now: float) -> None:
        if now - self.until > limits.ASIDE_FORGOTTEN_AFTER:
            self._times = 0
        span = min(limits.ASIDE_AFTER * 2**self._times, limits.ASIDE_CAP_AFTER)
        self._times += 1
        self._failures = 0
        self.why = why
        self.until = now + span
