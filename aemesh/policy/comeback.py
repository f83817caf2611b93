"""When a worker whose engine did not come up, or did not stay, is tried there again.

A pause doubles with each failure in a row.  A node that breaks soon after it came up
comes back at once the first time: bad luck is more common than what kills each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aemesh import limits
from aemesh.model.names import GroupName

_FIRST_AFTER = 1.0
_CAP_AFTER = 60.0
_DOUBLINGS = 10  # more are beyond the cap


@dataclass(slots=True)
class Comeback:
    """The failures of one worker, by group; spans are in seconds."""

    _failures: dict[GroupName, int] = field(default_factory=dict)  # in a row

    def failed(self, group: GroupName) -> float:
        """It did not come up; return the pause until the next try."""
        failures = self._failures.get(group, 0)
        self._failures[group] = failures + 1
        pause: float = _FIRST_AFTER * 2 ** min(failures, _DOUBLINGS)
        return min(pause, _CAP_AFTER)

    def broke(self, group: GroupName, *, lasted: float) -> float:
        """It broke after so long; return the pause, 0.0 if there is to be none."""
        self.parted(group, lasted=lasted)
        if lasted > limits.FAILS_QUICKLY_AFTER:
            return 0.0
        if group not in self._failures:
            self._failures[group] = 0
            return 0.0
        return self.failed(group)

    def parted(self, group: GroupName, *, lasted: float) -> None:
        """It served so long: if that was no moment, it did well."""
        if lasted > limits.FAILS_QUICKLY_AFTER:
            self._failures.pop(group, None)
