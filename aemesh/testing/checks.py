"""What every engine must do; run against each one that is installed, with real jobs.

    from aemesh.testing import checks

    async def test_it_is_an_engine(tmp_path):
        await checks.check_engine(ENGINE, tmp_path)

Or ``python -m aemesh.testing.checks NAME`` for one that is installed by this name.
Each check opens a group on this machine; what the engine starts are processes here.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
import trio.testing

from aemesh.errors import AemeshError
from aemesh.host.plugins import find_engine
from aemesh.host.processes import all_processes
from aemesh.model.names import NodeName
from aemesh.plugin import Departing, Idling
from aemesh.testing.local_group import LocalGroup, LocalMember, open_local_group

if TYPE_CHECKING:
    from aemesh.model.group import Receipt
    from aemesh.plugin import Engine, RunningEngine

OpenGroup = Callable[[], AbstractAsyncContextManager[LocalGroup]]
Check = Callable[["Engine", OpenGroup], Coroutine[None, None, None]]

# New interpreters that import what is large; on a busy machine all takes longer.
UP_AFTER = 20.0
# For what must not wait for a silent machine: TCP alone would take ten seconds more.
AT_ONCE_AFTER = 3.0
# Orderly ends, then the other ones; see `limits.TERM_AFTER`.
END_AFTER = 6.0

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)


async def check_engine(engine: Engine, folder: Path) -> None:
    """Hold an engine to all checks; raises what the first that fails raises.

    Its jobs run beneath `folder`, which is empty.
    """
    for number, check in enumerate(CHECKS):
        await run_check(check, engine, folder / str(number))


async def run_check(check: Check, engine: Engine, folder: Path) -> None:
    """Hold an engine to one check; the error has the name of it as a note."""
    try:
        await check(engine, lambda: open_local_group(folder))
    except Exception as error:
        error.add_note(f"engine {engine.name} fails: {check.__name__}")
        raise


async def it_opens_serves_and_leaves_nothing(
    engine: Engine, open_group: OpenGroup
) -> None:
    """Members come, go with a receipt and come again; the end leaves no process."""
    async with open_group() as group:
        one, two = two_members(group)
        with trio.fail_after(3 * UP_AFTER):
            async with engine.open(group) as running:
                _check_environment(running.connect_info())
                await add_both(running, one, two)
                await _check_idle(running, one, two)
                await _check_departing(running, one)

                receipt = await running.retire(one, by_after=UP_AFTER)

                _check_receipt(receipt, one)
                assert all(job.exit_now is not None for job in one.jobs)
                assert all(job.exit_now is None for job in two.jobs)
                await _check_idle(running, two)
                await running.add(one.next_one())
        assert group.jobs.jobs == ()
        assert group.broken == {}  # all of it was meant
        _check_spares(engine, group, two)


async def a_silent_member_holds_nobody_up(
    engine: Engine, open_group: OpenGroup
) -> None:
    """A machine whose cable is cut says nothing; the engine goes on without it."""
    async with open_group() as group:
        one, two = two_members(group)
        async with engine.open(group) as running:
            with trio.fail_after(UP_AFTER):
                await add_both(running, one, two)
            silence(one)

            with trio.fail_after(AT_ONCE_AFTER):
                await running.lost(one)
                await running.lost(one)  # again: it knows
                _check_receipt(await running.retire(two, by_after=1.0), two)
        assert group.jobs.jobs == ()
        assert group.broken == {}


async def a_dead_member_holds_nobody_up(engine: Engine, open_group: OpenGroup) -> None:
    """A member may be lost when its jobs have ended, or before it had any."""
    async with open_group() as group:
        one, two = two_members(group)
        async with engine.open(group) as running:
            with trio.fail_after(UP_AFTER):
                await running.add(one)
            for job in one.jobs:
                await job.end(term_after=0.0)

            with trio.fail_after(AT_ONCE_AFTER):
                await running.lost(one)
                await running.lost(two)
            with trio.fail_after(UP_AFTER):
                await running.add(one.next_one())
        assert group.jobs.jobs == ()


async def a_node_that_dies_is_told(engine: Engine, open_group: OpenGroup) -> None:
    """A member that is linked still is brought up anew, but only if we know."""
    async with open_group() as group:
        one, _ = two_members(group)
        async with engine.open(group) as running:
            with trio.fail_after(2 * UP_AFTER):
                await running.add(one)
                for job in one.jobs:
                    await job.end(term_after=0.0)
                if one.jobs:  # else nothing of it runs there
                    assert await group.wait_broken(one)
                await running.lost(one)
                await running.add(one.next_one())
        assert group.jobs.jobs == ()
        assert group.broken.keys() <= {one.label}


async def cancelled_it_leaves_nothing(engine: Engine, open_group: OpenGroup) -> None:
    """Whoever cancels the block, or a join in the middle, finds no process left."""
    async with open_group() as group:
        one, two = two_members(group)
        with trio.move_on_after(UP_AFTER) as scope:
            async with engine.open(group) as running:
                await running.add(one)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(running.add, two)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        with trio.fail_after(END_AFTER):
            for job in (*one.jobs, *two.jobs):
                await job.wait()
        assert group.jobs.jobs == ()


CHECKS: tuple[Check, ...] = (
    it_opens_serves_and_leaves_nothing,
    a_silent_member_holds_nobody_up,
    a_dead_member_holds_nobody_up,
    a_node_that_dies_is_told,
    cancelled_it_leaves_nothing,
)


def two_members(group: LocalGroup) -> tuple[LocalMember, LocalMember]:
    """Return two members of a group that were not told to the engine."""
    return (
        LocalMember(group, NodeName("office-1")),
        LocalMember(group, NodeName("office-2"), address="127.0.0.3"),
    )


async def add_both(running: RunningEngine, one: LocalMember, two: LocalMember) -> None:
    """Tell the engine of two members at one time, as they come in the morning."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.add, one)
        nursery.start_soon(running.add, two)


def silence(member: LocalMember) -> None:
    """Stop every process of a member: it hears nothing, and its sockets stay."""
    table = all_processes()
    for job in member.jobs:
        for process in job.tree.members(table):
            os.kill(process.pid, signal.SIGSTOP)


def _check_receipt(receipt: Receipt, member: LocalMember) -> None:
    assert (receipt.member, receipt.group) == (member.name, member.group.name)
    assert receipt.graceful
    assert type(receipt.moved) is int
    assert type(receipt.lost) is int


async def _check_idle(running: RunningEngine, *members: LocalMember) -> None:
    """One that tells who is idle tells it of each member, and of no other."""
    if isinstance(running, Idling):
        idle = await running.idle_after()
        assert idle.keys() == {member.label for member in members}
        assert all(type(after) is float and after >= 0.0 for after in idle.values())


async def _check_departing(running: RunningEngine, member: LocalMember) -> None:
    """One that plans with departures takes a member back, before and in the midst."""
    if isinstance(running, Departing):
        await running.expect(member, by_after=UP_AFTER)
        assert (await running.progress(member)).moved == 0
        await running.expect(member, by_after=None)
        await running.expect(member, by_after=None)  # again: it stays anyhow
        assert all(job.exit_now is None for job in member.jobs)


def _check_environment(env: object) -> None:
    assert isinstance(env, dict)
    for name, value in env.items():
        assert _VARIABLE.fullmatch(name)
        assert isinstance(value, str)
        assert "\0" not in value


def _check_spares(engine: Engine, group: LocalGroup, member: LocalMember) -> None:
    """What is kept warm must be the very job that is asked for later."""
    spare_head, spare_node = engine.spare_head(), engine.spare_node()
    assert spare_head is None or spare_head in group.head_specs
    assert spare_node is None or spare_node in member.specs


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aemesh.testing.checks",
        description="Hold an installed engine to what engines owe.",
    )
    parser.add_argument("name", metavar="NAME", help="the engine's name")
    name = parser.parse_args().name
    try:
        engine = find_engine(name)
    except AemeshError as error:
        parser.error(str(error))
    return 0 if trio.run(_run_all, engine) else 1


async def _run_all(engine: Engine) -> bool:
    """Run all checks of an engine; tell how each went."""
    well = True
    for check in CHECKS:
        began = trio.current_time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                await run_check(check, engine, Path(folder, "run"))
                how = "ok"
            except Exception:  # noqa: BLE001 - whatever it is, it is the engine's
                traceback.print_exc()
                how, well = "FAILED", False
        took = trio.current_time() - began
        sys.stdout.write(f"{check.__name__}: {how}, {took:.1f} s\n")
    return well


if __name__ == "__main__":
    sys.exit(_main())
