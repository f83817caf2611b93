"""A master and a worker that nobody needs end by themselves, and no sooner."""

from __future__ import annotations

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, UP_WITHIN, gone, open_office

pytestmark = [*LAB, pytest.mark.long]

# It computes nothing for longer than the master waits for somebody to use it.
SCRIPT = """
import time
from distributed import Client

if __name__ == "__main__":
    with Client() as client:
        print(client.submit(sum, range(100)).result(), flush=True)
        time.sleep(25)
        print(client.submit(sum, range(10)).result(), flush=True)
"""


async def test_a_detached_script_keeps_its_master_and_then_all_end_by_themselves():
    """Shows: L6, L8."""
    async with open_office(["laptop", "office-1"]) as office:
        laptop = office.laptop
        (laptop.home / "script.py").write_text(SCRIPT)
        (laptop.home / "script.py").chmod(0o644)
        words = ("--group", "A", "--accept-new", "--idle-exit", "15s")
        master = await office.start("laptop", "master", *words)
        await master.wait_said("is master of", within=UP_WITHIN)
        worker = await office.worker(
            "office-1", "--accept-first-master", "--idle-exit", "15s"
        )

        words = ("run", "--detach", "--group", "A", "script.py")
        started = await laptop.run([*laptop.aemesh, *words])
        job = started.stdout.strip()
        followed = await laptop.run([*laptop.aemesh, "attach", job], within=120)
        assert followed.stdout.splitlines() == ["4950", "45"]

        await master.wait_said("leaving: nobody used this master for 15s", within=60)
        assert await master.wait() == 0, master.said
        await worker.wait_said("leaving: no master held this machine", within=60)
        assert await worker.wait() == 0, worker.said
        assert "the master has ended" in master.said
        await wait_for(gone(laptop), within=10, what="an empty laptop")
