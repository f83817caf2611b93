"""Durable runs on real hosts: whatever is killed, what is finished is never lost."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, Office, engine_pids, named, open_office
from tests.lab.test_adoption import kill

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host

pytestmark = LAB

NAMES = ["office-1", "office-2", "office-3"]

# An item is some steps with a checkpoint behind each; all that is done is written down
# where it is done, for good.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
import aemesh

def note(*words):
    line = json.dumps([time.time(), *words]) + "\\n"
    fd = os.open(Path.home() / "steps.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)

def item(number):
    at, total = aemesh.resume() or (0, 0)
    note("begin", number, at)
    while at < STEPS:
        time.sleep(STEP_AFTER)
        total += number * at
        at += 1
        note("step", number, at)
        aemesh.checkpoint((at, total))
    return total

count, STEPS, STEP_AFTER = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with aemesh.connect("A") as group:
    values = list(group.map(item, range(count), key="k", retries=9))
Path("result.json").write_text(json.dumps(values))
"""


@dataclass(frozen=True)
class Step:
    """A line that an item wrote."""

    time: float
    kind: str
    item: int
    at: int


def steps(office: Office) -> list[Step]:
    """All that was done on all hosts, in its order."""
    lines = [
        line
        for host in office.lab
        for line in _read(host.home / "steps.log").splitlines()
    ]
    return sorted((Step(*json.loads(line)) for line in lines), key=lambda s: s.time)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def commits(office: Office) -> dict[int, float]:
    """When each item was committed that is."""
    if not await office.ask("runs"):
        return {}
    _, *items = await office.ask("runs", "show", "k")
    return {int(item["title"]): item["at"] for item in items}


async def start(host: Host, count: int, steps_of_each: int, after: float) -> Any:
    """Start the program on the laptop."""
    (host.home / "program.py").write_text(PROGRAM)
    words = (str(count), str(steps_of_each), str(after))
    log = (host.home / "program.log").open("ab")
    with log:
        argv = [host.python, "program.py", *words]
        return await host.start(argv, stdout=log, stderr=log)


async def check(office: Office, count: int, steps_of_each: int) -> int:
    """Assert that all is right and nothing was done twice; return how often resumed."""
    values = json.loads((office.laptop.home / "result.json").read_text())
    total = sum(range(steps_of_each))
    assert values == [number * total for number in range(count)]
    committed = await commits(office)
    assert len(committed) == count
    furthest: dict[int, int] = defaultdict(int)
    resumed = 0
    for step in steps(office):
        assert step.time < committed[step.item], f"{step} ran after its commit"
        if step.kind == "begin":
            # What was done behind the last checkpoint is one step at most.
            assert step.at >= furthest[step.item] - 1, step
            resumed += step.at > 0
        furthest[step.item] = max(furthest[step.item], step.at)
    return resumed


async def some_are_committed(office: Office, count: int) -> None:
    async def enough() -> bool:
        return len(await commits(office)) >= count

    await wait_for(enough, within=60, what=f"{count} items")


async def test_a_run_goes_on_after_its_client_a_worker_and_the_master_were_killed():
    """Shows: L3; the second call computes what is not kept, and nothing else."""
    async with open_office(["laptop", *NAMES[:2]]) as office:
        for name in NAMES[:2]:
            await office.worker(name)
        master = await office.master("A")
        await office.joined(*NAMES[:2])
        client = await start(office.laptop, 16, 4, 0.1)

        await some_are_committed(office, 4)
        client.kill()
        (engine,) = await engine_pids(office.host("office-1"))
        os.kill(engine, signal.SIGKILL)
        kill(master)
        await office.master("A")
        again = await start(office.laptop, 16, 4, 0.1)

        with trio.fail_after(60):
            assert await again.wait() == 0
        await check(office, 16, 4)


async def test_on_a_laptop_alone_the_same_script_keeps_what_is_finished():
    """Shows: E6, L3; another life of the same run finds what the last one kept."""
    async with open_office(["laptop"]) as office:
        laptop = office.laptop
        program = PROGRAM.replace('aemesh.connect("A")', "aemesh.connect()")
        (laptop.home / "program.py").write_text(program)
        argv = [*laptop.aemesh, "run", "program.py", "6", "2", "0.05"]

        await laptop.run(argv)
        first = steps(office)
        (laptop.home / "result.json").unlink()
        await laptop.run(argv)

        assert len(first) == 6 * 3
        assert steps(office) == first
        assert json.loads((laptop.home / "result.json").read_text()) == [
            0, 1, 2, 3, 4, 5
        ]  # fmt: skip


@pytest.mark.long
async def test_a_run_survives_a_worker_killed_every_three_seconds_and_two_masters():
    """Shows: L3, E6; and the scheduler, too; one call of the client, to its end."""
    chance = random.Random(5)
    async with open_office(["laptop", *NAMES]) as office:
        workers = {name: await office.worker(name) for name in NAMES}
        masters = [await office.master("A")]
        await office.joined(*NAMES)
        client = await start(office.laptop, 45, 6, 0.25)

        async def disturb() -> None:
            while True:
                await trio.sleep(3)
                name = chance.choice(NAMES)
                if chance.random() < 0.5:  # its engine, or all of it
                    for pid in await engine_pids(office.host(name)):
                        os.kill(pid, signal.SIGKILL)
                else:
                    kill(workers[name])
                    workers[name] = await office.worker(name)

        async def topple() -> None:
            for share in (12, 27):
                await some_are_committed(office, share)
                kill(masters[-1])
                await trio.sleep(2)
                masters.append(await office.master("A"))
            await some_are_committed(office, 32)
            for head in named(office.laptop, "dask_head.py"):
                os.kill(head, signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(disturb)
            nursery.start_soon(topple)
            with trio.fail_after(240):
                assert await client.wait() == 0
            nursery.cancel_scope.cancel()

        assert len(masters) == 3
        assert await check(office, 45, 6) > 0
