"""Workers behind a firewall that refuses incoming connections, on real hosts."""

from __future__ import annotations

import signal

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, open_office

pytestmark = LAB

EXEC = ("exec", "--group", "A", "--json", "--", "{python}", "-c", "print(6 * 7)")

# What needs no connection to the worker: tasks that say how they went by ending.
SCRIPT = """
from dask.distributed import Client

with Client() as client:
    info = client.scheduler_info()["workers"]
    print("processes", len(info))
"""


async def test_a_worker_that_refuses_connections_finds_its_master_and_serves():
    """Shows: D6; the master is heard of, dialled, and its commands are run."""
    async with open_office(["laptop", "office-1"]) as office:
        await office.host("office-1").firewall()
        await office.master("A")
        worker = await office.worker("office-1")
        await office.joined("office-1")

        view = await office.view("office-1")
        (status,) = await office.ask("status")
        assert (view["state"], view["held_by"]) == ("leased", "laptop")
        assert any(one.startswith(office.laptop.ipv4) for one in status["listening"])
        done = await office.laptop.run([*office.laptop.aemesh, *EXEC])
        assert '"code":0' in done.stdout.replace(" ", "")

        assert await worker.end(signal.SIGINT) == 0
        assert office.events is not None
        await office.events.wait("worker.left", worker="office-1")


async def test_a_dask_group_comes_up_behind_the_firewall():
    """Shows: D6; Dask's processes register, for that needs no incoming connection."""
    async with open_office(["laptop", "office-1"]) as office:
        await office.host("office-1").firewall()
        await office.master("A")
        await office.worker("office-1")
        await office.joined("office-1")
        script = office.laptop.home / "script.py"
        script.write_text(SCRIPT)

        argv = [*office.laptop.aemesh, "run", "--group", "A", str(script)]
        done = await office.laptop.run(argv)

        assert "processes 1" in done.stdout


async def test_a_worker_that_was_told_its_master_says_and_opens_nothing():
    """Shows: D4; nothing comes in, not even multicast."""
    async with open_office(["laptop", "office-1"]) as office:
        host = office.host("office-1")
        await host.firewall(allow_udp=())
        await office.master("A")
        (status,) = await office.ask("status")
        port = status["listening"][0].rpartition(":")[2]
        words = ("--accept-first-master", "--master", f"{office.laptop.ipv4}:{port}")
        worker = await office.worker("office-1", *words)
        await office.joined("office-1")

        async def nothing() -> bool:
            return all(one.pid != worker.pid for one in await host.listeners())

        # But for the moment in which its master tries to get through to it.
        await wait_for(nothing, within=10, what="a worker that listens nowhere")
        done = await office.laptop.run([*office.laptop.aemesh, *EXEC])
        assert '"code":0' in done.stdout.replace(" ", "")


async def test_a_worker_that_nobody_wants_gives_its_slot_back():
    """Shows: D10."""
    async with open_office(["office-1"]) as office:
        worker = await office.worker("office-1", "--give-up", "2s")

        assert await worker.wait() == 5
        assert "no master in 2 s" in worker.said
