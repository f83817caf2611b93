"""A master that is killed in the middle of an analysis, and what goes on without it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.testing.lab import wait_for
from tests.lab.office import (
    LAB,
    Agent,
    Office,
    engine_pids,
    gone,
    named,
    open_office,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = LAB

NAMES = ["office-1", "office-2"]

# Longer than LOST_AFTER, and shorter than TCP takes to end a connection.
CABLE_PULLED = 8.0


def kill(master: Agent) -> None:
    """Kill -9 of a master, and of its warden first, which would clear up."""
    pid = master.pid
    os.kill(master.process.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


async def test_the_master_is_killed_and_what_runs_goes_on_for_the_next_one(
    muons: Path, counts: str
):
    """Shows: L5; the same processes, the client's run ends right."""
    async with open_office(["laptop", *NAMES]) as office:
        for name in NAMES:
            await office.worker(name)
        first = await office.master("A")
        await office.joined(*NAMES)
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.1)
        head = await engine_pids(office.laptop)
        engines = {name: await engine_pids(office.host(name)) for name in NAMES}
        assert len(set(head)) == 1
        assert all(engines.values())

        kill(first)
        share = analysis.share
        await analysis.wait_share(share + 0.01)  # nobody is its master
        await office.master("A")
        assert office.events is not None
        after = (await office.events.wait("group.ready", after=1)).number
        await office.joined(*NAMES, after=after)

        assert await engine_pids(office.laptop) == head
        for name in NAMES:
            assert await engine_pids(office.host(name)) == engines[name]
            view = await office.view(name)
            assert (view["state"], view["generation"]) == ("leased", 1)
        analysis.check_runs()
        assert (await analysis.wait())["counts_sha256"] == counts
        # What the new master is told to do with what it adopted, it can do.
        following = await (await office.analyse("A", muons, scales=44)).wait()
        assert following["hosts"] == NAMES
        await office.laptop.run([*office.laptop.aemesh, "stop"])
        await wait_for(gone(office.laptop), within=15, what="an empty laptop")
        for name in NAMES:
            assert not await engine_pids(office.host(name))


async def open_with_heir(office: Office) -> tuple[Agent, list[str], dict[str, str]]:
    """Start a master on the laptop whose heir is the desk's, and all workers."""
    keys = {}
    for name in ("laptop", "desk"):
        host = office.host(name)
        await host.run([*host.aemesh, "key", "csr", "--role", "master"])
        (shown,) = await office.ask("key", "show", "--role", "master", name=name)
        keys[name] = str(shown["key"])
    trusting = [word for key in keys.values() for word in ("--trust-master", key)]
    for name in NAMES:
        await office.worker(name, *trusting)
    words = ["master", "--group", "A", "--accept-new", "--heir", keys["desk"]]
    first = await office.start("laptop", *words)
    await first.wait_said("serves A: 1 core", times=2)
    return first, words, keys


@pytest.mark.long
async def test_if_no_master_comes_workers_free_themselves(muons: Path):
    """Shows: L5, L7; when the time is over that the master gave."""
    async with open_office(["laptop", *NAMES]) as office:
        for name in NAMES:
            await office.worker(name)
        first = await office.start(
            "laptop", "master", "--group", "A", "--accept-new", "--kept", "2s"
        )
        await first.wait_said("serves A: 1 core", times=2)
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.05)

        kill(first)

        for name in NAMES:
            host = office.host(name)

            async def empty(host=host) -> bool:
                return not await engine_pids(host)

            await wait_for(empty, within=20, what=f"no engine on {name}")
        nothing = lambda: not named(office.laptop, "dask_head.py")  # noqa: E731
        await wait_for(nothing, within=20, what="no scheduler on the laptop")


async def test_an_heir_on_another_host_takes_over_from_a_master_that_is_gone(
    muons: Path, counts: str
):
    """Shows: L5; the scheduler and the tasks go on where they are."""
    async with open_office(["laptop", "desk", *NAMES]) as office:
        first, words, keys = await open_with_heir(office)
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.1)
        engines = {name: await engine_pids(office.host(name)) for name in NAMES}
        head = await engine_pids(office.laptop)

        os.kill(first.process.pid, signal.SIGKILL)  # its agent falls with its warden
        heir = await office.start(
            "desk", "master", "--accept-new", "--adopt", keys["laptop"]
        )
        await heir.wait_said("took over from .*: A")
        await heir.wait_said("serves A: 1 core", times=2)

        assert await engine_pids(office.laptop) == head
        for name in NAMES:
            assert await engine_pids(office.host(name)) == engines[name]
        analysis.check_runs()
        assert (await analysis.wait())["counts_sha256"] == counts
        # Whoever sits at the heir's machine has the group now.
        here = await office.analyse("A", muons, scales=44, name="desk")
        assert (await here.wait())["hosts"] == NAMES
        # The first one does not take back what it has lost.
        back = await office.start("laptop", *words)
        assert await back.wait() == 4
        assert "were adopted by another master" in back.said


@pytest.mark.long
async def test_an_heir_whose_cable_is_pulled_goes_on_where_it_was(
    muons: Path, counts: str
):
    """Shows: L5; then it is killed, and goes on once more: the scheduler never ends."""
    async with open_office(["laptop", "desk", *NAMES]) as office:
        first, _, keys = await open_with_heir(office)
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.05)
        engines = {name: await engine_pids(office.host(name)) for name in NAMES}
        head = await engine_pids(office.laptop)
        os.kill(first.process.pid, signal.SIGKILL)
        words = ("master", "--accept-new", "--adopt", keys["laptop"])
        heir = await office.start("desk", *words)
        await heir.wait_said("serves A: 1 core", times=2)

        await office.host("desk").cut()
        await trio.sleep(CABLE_PULLED)  # what is tested is a span of time
        await office.host("desk").mend()
        await heir.wait_said("goes on with what it had from .*: A")
        await heir.wait_said("serves A: 1 core", times=4)
        assert await engine_pids(office.laptop) == head

        kill(heir)
        again = await office.start("desk", *words)
        await again.wait_said("serves A: 1 core", times=2)

        assert await engine_pids(office.laptop) == head
        for name in NAMES:
            assert await engine_pids(office.host(name)) == engines[name]
        assert (await analysis.wait())["counts_sha256"] == counts
        here = await office.analyse("A", muons, scales=44, name="desk")
        assert (await here.wait())["hosts"] == NAMES
