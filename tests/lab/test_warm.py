"""Spares that have imported what groups name: real processes, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import trio

from tests.lab.office import LAB, named, open_office

if TYPE_CHECKING:
    from aemesh.testing.lab import Host
    from tests.lab.office import Office

pytestmark = LAB

# How long spares are watched: Dask, awake, would look around some hundred times.
_WATCHED_AFTER = 3.0
# What importing Dask takes of memory, if others share all that can be shared.
_LEAST_MEMORY = 20 * 2**20


async def test_spares_import_what_groups_name_and_cost_no_processor_while_they_wait():
    """Shows: L4."""
    async with open_office(["laptop", "office-1"]) as office:
        await office.worker("office-1", "--accept-first-master", "--spares", "2")
        words = ("--preload", "json.tool,no_such_module", "--spares", "1")
        await office.master("A", more=words)
        await office.joined("office-1")
        told = await office.events.wait("engine.report", group="A")

        spares = await wait_spares(office, "office-1", 2)
        view = await office.view("office-1")
        before = {pid: cost(pid) for pid in spares}
        await trio.sleep(_WATCHED_AFTER)
        after = {pid: cost(pid) for pid in spares}
        code = "import sys, distributed as d; c = d.Client(); r = c.submit(lambda: "
        code += "'json.tool' in __import__('sys').modules).result(); sys.exit(not r)"
        script = host_file(office.laptop, "loaded.py", code)
        await office.laptop.run([*office.laptop.aemesh, "run", "--group", "A", script])

    assert 'office-1 works without the module "no_such_module"' in told.text
    assert "ModuleNotFoundError" in told.text
    assert after == before, "a spare was awake"
    assert view["spares"] == 2
    assert 40 * 2**20 < view["spare_memory"] < 400 * 2**20


async def test_who_lends_a_machine_may_want_no_spares():
    """Shows: L4."""
    async with open_office(["laptop", "office-1"]) as office:
        await office.worker("office-1", "--accept-first-master", "--spares", "0")
        await office.master("A")
        await office.joined("office-1")
        await trio.sleep(1.5)  # when the next would be started

        assert spare_pids(office.host("office-1")) == []
        assert (await office.view("office-1"))["spares"] == 0


def cost(pid: int) -> tuple[int, int, int]:
    """Return the processor's ticks, and how often it was woken and interrupted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    used = int(fields[11]) + int(fields[12])
    voluntary = involuntary = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt"):
                voluntary += int(line.split()[1])
            elif line.startswith("nonvoluntary_ctxt"):
                involuntary += int(line.split()[1])
    return used, voluntary, involuntary


def spare_pids(host: Host) -> list[int]:
    """Return the nodes on a host that no group has taken: they have no workers."""
    nodes = {pid: psutil.Process(pid) for pid in named(host, "dask_node.py")}
    return [
        pid
        for pid, node in nodes.items()
        if job_of(pid)[:6] == "spare-"
        and not node.children()
        and node.ppid() not in nodes
    ]


def job_of(pid: int) -> str:
    return environ(pid).get("AEMESH_JOB", "")


def modules_of(pid: int) -> str:
    return environ(pid).get("AEMESH_PRELOAD", "")


def environ(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    except OSError:
        return {}
    return dict(one.partition("=")[::2] for one in raw.split("\0"))


async def wait_spares(office: Office, worker: str, count: int) -> list[int]:
    """Wait until a worker has so many spares with the modules, all warm; name them."""
    host = office.host(worker)
    with trio.fail_after(30):
        while True:
            found = spare_pids(host)
            loaded = [pid for pid in found if "json.tool" in modules_of(pid)]
            view = await office.view(worker)
            there = len(loaded) == len(found) == count == view["spares"]
            if there and view["spare_memory"] > count * _LEAST_MEMORY:
                return loaded
            await trio.sleep(0.1)


def host_file(host: Host, name: str, text: str) -> str:
    path = host.home / name
    path.write_text(text)
    path.chmod(0o644)
    return str(path)
