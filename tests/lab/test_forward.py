"""Workers that nobody reaches take part: what others say to them goes by the master."""

from __future__ import annotations

import json
import os
import signal

import pytest

from aemesh.testing.lab import BRANCH, Host
from tests.lab.office import LAB, Office, open_office
from tests.lab.test_adoption import NAMES, open_with_heir

pytestmark = LAB

# Each process makes something and sends it to each other one, which sums it up.
SCRIPT = """
import hashlib, json, sys
from dask.distributed import Client

SIZE = 3_000_000

def make(number):
    return bytes([number]) * SIZE

def told(data):
    return hashlib.sha256(data).hexdigest()

with Client() as client:
    client.wait_for_workers(int(sys.argv[1]), timeout=60)
    found = client.scheduler_info(n_workers=-1)["workers"]
    names = {address: one["name"].split(".")[0] for address, one in found.items()}
    right = {}
    for number, source in enumerate(sorted(names)):
        made = client.submit(make, number, workers=[source], pure=False)
        for sink in sorted(names):
            if sink != source:
                sent = client.submit(told, made, workers=[sink], pure=False)
                right[f"{names[source]}>{names[sink]}"] = (
                    sent.result(timeout=60) == told(make(number))
                )
        right[f"{names[source]}>client"] = made.result(timeout=60) == make(number)
    json.dump({"right": right, "addresses": names}, sys.stdout)
"""


async def analyse(office: Office, workers: int, *, name: str = "") -> dict[str, dict]:
    """Run the script on the laptop, or on another host; return what it found."""
    host = office.host(name) if name else office.laptop
    script = host.home / "script.py"
    script.write_text(SCRIPT)
    argv = [*host.aemesh, "run", "--group", "A", str(script), str(workers)]
    done = await host.run(argv)
    return json.loads(done.stdout)


async def hide(office: Office, host: Host) -> None:
    """Put a host behind a router that translates addresses."""
    await office.lab.open_branch()
    await host.move(BRANCH, 9)
    await office.lab.hide_branch()


async def master_address(office: Office) -> str:
    (status,) = await office.ask("status")
    (found,) = (a for a in status["listening"] if a.startswith(office.laptop.ipv4))
    return found


async def test_behind_a_router_and_behind_a_firewall_they_send_each_other_results():
    """Shows: E7; and the plain one beside them is reached directly."""
    names = ["laptop", "plain", "walled", "hidden"]
    async with open_office(names) as office:
        await hide(office, office.host("hidden"))
        await office.host("walled").firewall()
        await office.master("A")
        at = await master_address(office)
        await office.worker("plain")
        await office.worker("walled")
        await office.worker("hidden", "--accept-first-master", "--master", at)
        await office.joined(*names[1:])

        found = await analyse(office, 3)

        assert len(found["right"]) == 3 * 3
        assert all(found["right"].values()), found
        hosts = {
            name: address.removeprefix("tls://").partition(":")[0]
            for address, name in found["addresses"].items()
        }
        here = office.laptop.ipv4
        plain = office.host("plain").ipv4
        assert hosts == {"plain": plain, "walled": here, "hidden": here}
        ports = {name: (await office.view(name))["ports"] for name in names[1:]}
        ways = {name: one["way"] for name, one in ports.items()}
        assert ways == {"plain": "direct", "walled": "forwarded", "hidden": "forwarded"}
        assert ports["plain"]["bytes"] == 0
        # Once for certain: who comes second may get it from the first that has it.
        for name in ("walled", "hidden"):
            assert ports[name]["bytes"] > 3_000_000
            assert office.events is not None
            assert office.events.find("worker.forwarded", worker=name)


async def test_a_master_that_comes_back_listens_where_the_one_before_did():
    """Shows: E7, L5; Dask's processes go by the address that they were told first."""
    async with open_office(["laptop", "plain", "walled"]) as office:
        await office.host("walled").firewall()
        first = await office.master("A")
        for name in ("plain", "walled"):
            await office.worker(name)
        await office.joined("plain", "walled")
        before = await analyse(office, 2)

        for pid in (first.process.pid, first.pid):  # the warden would clear up
            os.kill(pid, signal.SIGKILL)
        await first.wait()
        await office.master("A")
        assert office.events is not None
        after = (await office.events.wait("group.ready", after=1)).number
        await office.joined("plain", "walled", after=after)

        found = await analyse(office, 2)
        assert all(found["right"].values()), found
        assert found["addresses"] == before["addresses"]
        ports = (await office.view("walled"))["ports"]
        assert (ports["way"], ports["bytes"] > 3_000_000) == ("forwarded", True)


@pytest.mark.long
async def test_an_heir_elsewhere_brings_up_anew_whom_nobody_else_reaches():
    """Shows: E7, L5; Dask was told an address of the master that is gone."""
    async with open_office(["laptop", "desk", *NAMES]) as office:
        await office.host(NAMES[0]).firewall()
        first, _, keys = await open_with_heir(office)
        os.kill(first.process.pid, signal.SIGKILL)  # its agent falls with its warden
        words = ("master", "--accept-new", "--adopt", keys["laptop"])
        heir = await office.start("desk", *words)
        await heir.wait_said("serves A: 1 core", times=2)

        found = await analyse(office, 2, name="desk")

        assert all(found["right"].values()), found
        assert f"{NAMES[0]} was reached through {office.laptop.ipv4}" in heir.said
        (through,) = (at for at, name in found["addresses"].items() if name == NAMES[0])
        assert office.host("desk").ipv4 in through
