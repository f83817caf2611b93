"""How many callers the jobs of an agent have."""

from __future__ import annotations

import pytest
import trio

from aemesh import limits
from aemesh.host.callers import Callers


async def enters(callers: Callers, job: str, times: int) -> int:
    """Return how often one of this job gets in without waiting."""
    with trio.move_on_after(1):
        for count in range(times):
            await trio.lowlevel.checkpoint_if_cancelled()
            with trio.move_on_after(0.1) as scope:
                await callers.enter(job)
            if scope.cancelled_caught:
                return count
    return times


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (
        ("JOB_CALLERS", 8),
        ("AGENT_CALLERS", 10),
        ("JOB_OWN_CALLERS", 2),
    ):
        monkeypatch.setattr(limits, name, number)


@pytest.mark.usefixtures("bounds", "autojump_clock")
async def test_each_job_has_its_few_whatever_others_hold():
    """Threat: T6: jobs that connect without end shut no other out."""
    callers = Callers()

    assert await enters(callers, "greedy", 20) == 8
    assert await enters(callers, "too", 20) == 2
    assert await enters(callers, "modest", 20) == 2

    callers.leave("greedy")
    assert await enters(callers, "modest", 20) == 0  # all have 11
    callers.forget("greedy")
    assert await enters(callers, "modest", 20) == 6


@pytest.mark.usefixtures("bounds", "autojump_clock")
async def test_who_waits_gets_in_when_a_caller_of_another_job_leaves(
    nursery: trio.Nursery,
):
    callers = Callers()
    await enters(callers, "one", 8)
    await enters(callers, "two", 2)
    inside = trio.Event()

    async def wait() -> None:
        await callers.enter("two")
        inside.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not inside.is_set()

    callers.leave("one")
    await inside.wait()
