"""Discovery between real hosts: how fast, by whom else, and when networks change."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from aemesh import limits
from aemesh.testing.lab import Host, Lab, open_lab
from aemesh.testing.lab_avahi import open_avahi
from aemesh.testing.lab_needs import can_build

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not can_build(), reason="run beneath `python -m aemesh.testing.lab --`"
    ),
]

HEARD_WITHIN = 20.0
SEEN_AFTER = 0.005

# Announces once, and afresh for each line on its stdin; the name tells when.
WORKER = """
import time, trio
from dataclasses import replace
from aemesh.net.discovery import open_discovery
from aemesh.testing.checks_discovery import new_presence
async def main():
    presence, sign = new_presence()
    async with open_discovery() as discovery:
        await discovery.announce(presence, sign=sign)
        print("up", flush=True)
        async for _ in trio.lowlevel.FdStream(0):
            named = replace(presence, name=f"{time.time():.6f}")
            await discovery.announce(named, sign=sign)
trio.run(main)
"""

# Tells all news as lines of JSON.
MASTER = """
import json, time, trio
from aemesh.model.trust import Role
from aemesh.net.discovery import open_discovery
from aemesh.policy.discovery import Sightings, dialable
async def main():
    async with open_discovery() as discovery:
        async with discovery.browse(Role.WORKER, Sightings()) as stream:
            print(json.dumps({"news": "ready"}), flush=True)
            async for news in stream:
                now = time.time()
                told = {"news": type(news).__name__, "at": now}
                announcement = getattr(news, "announcement", None)
                if announcement:
                    told["name"] = announcement.name
                    told["hosts"] = [a.host for a in announcement.addresses]
                    told["dialled"] = [a.host for a in announcement.addresses
                                       if dialable(a)]
                print(json.dumps(told), flush=True)
trio.run(main)
"""


async def test_an_announcement_is_seen_by_a_running_master_in_milliseconds() -> None:
    async with open_lab(["office-1", "laptop"]) as lab:
        office, laptop = lab
        async with running(laptop, MASTER) as master, running(office, WORKER) as worker:
            await master.news("New")
            # The repeats of the first announcement would be in the way.
            await trio.sleep(1)
            delays = []
            for _ in range(15):
                await worker.say()
                told = await master.news("Updated")
                delays.append(told["at"] - float(told["name"]))
                await trio.sleep(0.1)

    assert statistics.median(delays) < SEEN_AFTER, delays


async def test_avahi_on_another_host_sees_us_by_ipv4_and_ipv6() -> None:
    """Shows: D1."""
    async with open_lab(["office-1", "laptop"]) as lab:
        office, laptop = lab
        async with open_avahi(laptop) as avahi, running(office, WORKER) as worker:
            assert await worker.line() == "up"
            lines = await avahi.browse("_aemesh-worker._tcp")

    found = [line.split(";") for line in lines if line.startswith("=")]
    assert {"IPv4", "IPv6"} == {one[2] for one in found}
    addresses = {one[7] for one in found}
    assert office.ipv4 in addresses
    assert {one[8] for one in found} == {"7472"}
    assert all(one[3].startswith("aemesh-") for one in found)
    assert all('"v=1"' in one[9] and '"n=some-worker"' in one[9] for one in found)


async def test_a_host_with_nothing_but_link_local_ipv6_is_found() -> None:
    async with open_lab(["office-1", "laptop"]) as lab:
        office, laptop = lab
        for host in lab:
            await host.run(["ip", "-4", "addr", "flush", "dev", "eth0"], root=True)
            flush = ["ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global"]
            await host.run(flush, root=True)
        async with running(laptop, MASTER) as master, running(office, WORKER):
            told = await master.news("New")

    (host_,) = told["dialled"]
    assert host_.startswith("fe80::")
    assert host_.endswith("%eth0")


async def test_a_new_address_of_a_worker_is_heard() -> None:
    """Shows: D7."""
    async with open_lab(["office-1", "laptop"]) as lab, pair(lab) as (master, _):
        add = ["ip", "addr", "add", "10.77.0.77/24", "dev", "eth0"]
        await lab.hosts[0].run(add, root=True)

        while "10.77.0.77" not in (await master.news("Updated"))["hosts"]:
            pass


async def test_a_worker_that_starts_without_a_network_is_found_when_there_is_one() -> (
    None
):
    async with open_lab(["office-1", "laptop"]) as lab:
        office, laptop = lab
        await office.run(["ip", "link", "set", "eth0", "down"], root=True)
        async with running(laptop, MASTER) as master, running(office, WORKER) as worker:
            assert await worker.line() == "up"
            await office.run(["ip", "link", "set", "eth0", "up"], root=True)

            told = await master.news("New")

    assert told["dialled"]


async def test_a_worker_whose_cable_was_cut_is_heard_again_after_it_is_mended() -> None:
    """Shows: D7."""
    async with open_lab(["office-1", "laptop"]) as lab, pair(lab) as (master, _):
        office = lab.hosts[0]
        await office.cut()
        # A shorter cut is no news: the links go on, or are dialled again.
        await trio.sleep(limits.INTERFACES_EVERY + 1)
        await office.mend()

        told = await master.news("Updated")

    assert office.ipv4 in told["dialled"]


async def test_a_master_that_lost_its_network_hears_what_came_meanwhile() -> None:
    async with open_lab(["office-1", "laptop"]) as lab:
        office, laptop = lab
        async with running(laptop, MASTER) as master:
            await master.news("ready")
            await laptop.cut()
            async with running(office, WORKER) as worker:
                assert await worker.line() == "up"
                await trio.sleep(3)
                await laptop.mend()

                await master.news("New")


async def test_the_end_of_a_worker_is_heard() -> None:
    async with open_lab(["office-1", "laptop"]) as lab, pair(lab) as (master, worker):
        await worker.close_stdin()
        told = await master.news("Silent")

    assert told["news"] == "Silent"


# --- programs on hosts ---------------------------------------------------------------


class Program:
    """A script that runs on a host and talks in lines."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._rest = b""

    async def say(self) -> None:
        await self._stdin.send_all(b"\n")

    async def close_stdin(self) -> None:
        await self._stdin.aclose()

    async def line(self) -> str:
        while b"\n" not in self._rest:
            chunk = await self._stdout.receive_some()
            assert chunk, "the program ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def news(self, kind: str) -> dict[str, Any]:
        """Return the next news of this kind; others are passed over."""
        with trio.fail_after(HEARD_WITHIN):
            while True:
                told: dict[str, Any] = json.loads(await self.line())
                if told["news"] == kind:
                    return told


@asynccontextmanager
async def running(host: Host, script: str) -> AsyncIterator[Program]:
    pipe = subprocess.PIPE
    argv = [host.python, "-c", script]
    async with host.open_process(argv, stdin=pipe, stdout=pipe) as process:
        yield Program(process)


@asynccontextmanager
async def pair(lab: Lab) -> AsyncIterator[tuple[Program, Program]]:
    """A master on the second host that has heard of a worker on the first."""
    office, laptop = lab
    async with running(laptop, MASTER) as master, running(office, WORKER) as worker:
        await master.news("New")
        yield master, worker
