"""Attacks and accidents on real hosts: what a job sees, and that it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, named, open_office, state

if TYPE_CHECKING:
    from tests.lab.office import Office

pytestmark = LAB

LOOK = """
import json, os
fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
       if os.path.exists(f"/proc/self/fd/{fd}")}
print(json.dumps({"fds": fds, "env": dict(os.environ), "uid": os.getresuid(),
                  "argv": open("/proc/self/cmdline").read()}))
"""

# A job whose children do what they can to get away.
FLEEING = "setsid sh -c 'setsid sleep 4242 & sleep 4242' & sleep 4242 & wait"


async def test_a_job_on_a_real_worker_sees_no_key_environment_or_file_of_the_agent():
    """Threat: 84."""
    async with open_office(["laptop", "office-1"]) as office:
        secret = {"AEMESH_STATE": "", "SSH_AUTH_SOCK": "/run/agent", "TOKEN": "swordfish"}
        office_1 = office.host("office-1")
        secret["AEMESH_STATE"] = str(state(office_1))
        await office.worker("office-1", "--accept-first-master", env=secret)
        await office.master("A")
        await office.joined("office-1")
        laptop = office.laptop
        done = await laptop.run(
            [*laptop.aemesh, "exec", "--group", "A", "--", "python3", "-c", LOOK]
        )
        key = (state(office_1, "worker") / "id_ed25519").read_text()

    seen: dict[str, Any] = json.loads(done.stdout.removeprefix("office-1: "))
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert all(target.startswith(("pipe:", "/dev/null")) for target in seen["fds"].values())
    assert not secret.keys() & seen["env"].keys()
    assert "swordfish" not in done.stdout
    assert not any(line in done.stdout for line in key.splitlines())
    assert set(seen["uid"]) == {office_1.uid}


@pytest.mark.parametrize("way", ["cut", "master"])
async def test_a_job_ends_with_the_lease_when_its_master_is_gone(way: str):
    """Threat: 90."""
    async with open_office(["laptop", "office-1"]) as office:
        worker = await office.worker("office-1")
        master = await office.master("A")
        await office.joined("office-1")
        laptop, office_1 = office.laptop, office.host("office-1")
        argv = [*laptop.aemesh, "exec", "--group", "A", "--", "sh", "-c", FLEEING]
        await laptop.start(argv, stdout=subprocess.DEVNULL)
        await wait_for(
            lambda: len(sleepers(office)) == 3, within=15, what="a job that flees"
        )

        if way == "cut":
            await office_1.cut()
        else:
            os.kill(master.pid, signal.SIGKILL)
        await wait_for(
            lambda: not sleepers(office), within=20, what="the end of the job"
        )
        await worker.wait_said("left group A")
        left = named(office_1, "dask_node.py")
        sockets = await office_1.listeners()

        assert worker.process.returncode is None
        assert {one.pid for one in sockets} == {worker.pid}, left
        if way == "master":
            await wait_for(
                lambda: named(laptop, "dask_head.py") == [],
                within=10,
                what="a laptop without its scheduler",
            )


def sleepers(office: Office) -> list[int]:
    """Return what is left of the job."""
    return [
        pid
        for pid in named(office.host("office-1"), "4242")
        if pid in named(office.host("office-1"), "sleep")
    ]
