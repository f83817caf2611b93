"""``aemesh run`` on a laptop alone: loopback only, and nothing is left."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import EXAMPLES, LAB, SCALES, give, gone, open_office, state

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host
    from tests.lab.office import Office

pytestmark = LAB

# What the libraries of the analysis write by themselves at their first import.
IMPORT = "import distributed, hist, matplotlib.figure, matplotlib.font_manager, uproot"


async def test_a_run_alone_listens_on_loopback_only_and_leaves_nothing(
    muons: Path, counts: str
):
    """Shows: A1."""
    async with open_office(["laptop"]) as office:
        laptop = office.laptop
        before = await trodden(office, muons)

        analysis = await office.analyse(None, muons)
        await analysis.wait_share(0.2)
        sockets = await laptop.listeners()
        analysis.check_runs()
        result = await analysis.wait()
        after = await files(laptop)

        assert sockets, "the engine listens somewhere"
        assert {one.address for one in sockets} == {"127.0.0.1"}
        assert {one.protocol for one in sockets} == {"tcp"}
        assert result["counts_sha256"] == counts
        assert laptop.processes() == set()
        assert await laptop.listeners() == []
        made = {f"{laptop.home}/{name}" for name in ("alone.png", "alone.json")}
        assert after == before | made
        assert leftovers(laptop) == []


@pytest.mark.parametrize("way", ["ctrl-c", "warden", "agent"])
async def test_a_run_that_is_ended_in_between_leaves_nothing(muons: Path, way: str):
    """Shows: L7; Threat: 79, 90."""
    async with open_office(["laptop"]) as office:
        laptop = office.laptop
        before = await trodden(office, muons)
        words = [f"{EXAMPLES}/dimuon.py", *give(laptop, muons)]
        words += ["--scales", str(SCALES)]

        run = await office.start("laptop", "run", *words, terminal=True)
        await run.wait_said(r"\d+ of \d+ tasks", within=60)
        if way == "ctrl-c":
            assert run.terminal is not None
            await run.terminal.type("\x03")
        else:
            pid = run.process.pid if way == "warden" else run.pid
            os.kill(pid, signal.SIGKILL)
        code = await run.wait()

        expected = {"ctrl-c": 130, "warden": -signal.SIGKILL, "agent": 137}
        assert code == expected[way], run.said
        await wait_for(gone(laptop), within=10, what="an empty laptop")
        assert await laptop.listeners() == []
        assert await files(laptop) == before
        if way == "agent":  # nobody was there to do it: the next run does
            hello = laptop.home / "hello.py"
            hello.write_text("print('hello')")
            hello.chmod(0o644)
            await laptop.run([*laptop.aemesh, "run", str(hello)])
        assert leftovers(laptop) == []


async def trodden(office: Office, muons: Path) -> set[str]:
    """Return the files of a laptop on which the analysis' libraries were in use."""
    laptop = office.laptop
    give(laptop, muons)
    await laptop.run([laptop.python, "-c", IMPORT])
    await laptop.run(["mkdir", "-p", str(state(laptop).parent)])
    return await files(laptop)


async def files(host: Host) -> set[str]:
    """Return all that is in the places where a user may write, but for the state."""
    places = [str(host.home), "/tmp", "/var/tmp", "/dev/shm", f"/run/user/{host.uid}"]
    besides = ["-path", str(state(host)), "-prune", "-o", "-print"]
    found = await host.run(["find", *places, *besides], root=True)
    return set(found.stdout.splitlines())


def leftovers(host: Host) -> list[str]:
    """Return what is in the state directory besides empty folders."""
    return [str(path) for path in state(host).rglob("*") if not path.is_dir()] + [
        str(path) for path in (state(host, "laptop")).iterdir()
    ]
