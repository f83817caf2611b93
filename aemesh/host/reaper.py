"""Ends the trees of jobs, with one look at the process table for all that are ending.

A look reads a file of each process of the machine, and two of some.  In the event loop,
for each job, it would hold up the agent's links when many jobs end at once.  So it is
taken in a thread, one at a time, for all trees that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import trio

from aemesh import limits
from aemesh.host.jobtree import JobTree, kill_trees
from aemesh.host.processes import Process
from aemesh.tasks.together import Together

_log = logging.getLogger(__name__)

# A killed process is gone after one or two milliseconds; what hangs in the kernel, or
# took another user's rights, is looked for less and less often.
_LOOK_AGAIN_AFTER = 0.002
_LOOK_AT_LEAST_EVERY = 0.1
# Until there are files again to look with.
_BREATH_AFTER = 0.1

_Members = Mapping[JobTree, Sequence[Process]]


class Reaper:
    """Ends trees; shared by all jobs of an agent."""

    def __init__(self) -> None:
        # Of its own: the folders of many jobs may be removed in all other threads.
        self._thread = trio.CapacityLimiter(1)
        self._looks = Together(self._kill)

    def __repr__(self) -> str:
        return f"<Reaper {self._looks!r}>"

    async def end(self, tree: JobTree) -> list[int]:
        """Kill all of a tree until nothing is left; return the pids that remain.

        None should: only what hangs in the kernel, or took another user's rights,
        outlives `limits.GONE_AFTER`.
        """
        seen: Sequence[Process] = ()
        pause = _LOOK_AGAIN_AFTER
        with trio.move_on_after(limits.GONE_AFTER):
            # Nobody tells of the end of processes that are not our children.
            while members := await self._looks.ask(tree):
                same, seen = members == seen, members
                pause = (
                    min(2 * pause, _LOOK_AT_LEAST_EVERY) if same else _LOOK_AGAIN_AFTER
                )
                await trio.sleep(pause)
            return []
        return [process.pid for process in await self._looks.ask(tree)]

    async def _kill(self, trees: Collection[JobTree]) -> _Members:
        told = False
        while True:
            kill = partial(kill_trees, trees)
            try:
                return await trio.to_thread.run_sync(kill, limiter=self._thread)
            except OSError as error:  # files have run out, so nothing is known
                if not told:
                    _log.warning("jobs cannot be looked for: %s", error)
                told = True
                await trio.sleep(_BREATH_AFTER)
