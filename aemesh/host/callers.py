"""Who may be connected to the sockets of an agent's jobs: so many, and of each a few.

Each connection is an open file of the agent.  Those beyond the bound wait to be
accepted; but a job that opens all that there are does not shut the others out.
"""

from __future__ import annotations

from collections import Counter

import trio

from aemesh import limits


class Callers:
    """Counts the callers of all jobs of an agent."""

    def __init__(self) -> None:
        self._of: Counter[object] = Counter()
        self._left = trio.lowlevel.ParkingLot()

    async def enter(self, job: object) -> None:
        """Take a place for a caller of this job, as soon as there is one."""
        while not self._has_place(job):
            await self._left.park()
        self._of[job] += 1

    def leave(self, job: object) -> None:
        """Give the place of one of its callers back."""
        self._of[job] -= 1
        self._left.unpark_all()

    def forget(self, job: object) -> None:
        """Give all of its places back: it has ended."""
        del self._of[job]
        self._left.unpark_all()

    def _has_place(self, job: object) -> bool:
        own = self._of[job]
        if own >= limits.JOB_CALLERS:
            return False
        return own < limits.JOB_OWN_CALLERS or self._of.total() < limits.AGENT_CALLERS

    def __repr__(self) -> str:
        return f"<Callers: {self._of.total()} of {len(self._of)} jobs>"
