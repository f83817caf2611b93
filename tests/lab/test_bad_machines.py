"""Machines on which nothing comes up, and lines that break again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, UP_WITHIN, Loss, Office, open_office

if TYPE_CHECKING:
    from aemesh.testing.lab import Host

pytestmark = LAB

# A machine whose update of Python's packages stopped in the middle.
BROKEN = 'raise ImportError("half of it was installed")\n'

FLAPS = 5


def break_dask(host: Host) -> dict[str, str]:
    """Put a broken Dask before the good one; return the environment that has it."""
    folder = host.home / "broken"
    (folder / "distributed").mkdir(parents=True)
    file = folder / "distributed" / "__init__.py"
    file.write_text(BROKEN)
    for path, mode in ((folder, 0o755), (file.parent, 0o755), (file, 0o644)):
        path.chmod(mode)
    return {"PYTHONPATH": f"{folder}:/mnt/aemesh/checkout"}


async def test_a_machine_on_which_nothing_comes_up_is_set_aside():
    """Shows: L2, G3; who waits for the group's min is told, with its own exit code."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        laptop, broken = office.laptop, office.host("office-2")
        await office.master("A")
        words = ("group", "set", "A", "--min", "2", "--wait", "1s")
        await laptop.run([*laptop.aemesh, *words])
        await office.worker("office-1")
        await office.joined("office-1")
        await office.worker("office-2", env=break_dask(broken))

        assert office.events is not None
        await office.events.wait("worker.aside", worker="office-2")
        note = str((await office.view("office-2"))["note"])
        assert "set aside for" in note
        assert "3 quick failures" in note
        told = [e for e in office.events.seen if e.worker == "office-2"]
        kinds = [event.kind for event in told]
        assert kinds.count("worker.failed") == 3
        assert kinds.count("worker.aside") == 1
        (laptop.home / "script.py").write_text("print('never')\n")
        (laptop.home / "script.py").chmod(0o644)
        words = ("run", "--group", "A", "script.py")
        done = await laptop.run([*laptop.aemesh, *words], check=False)

        assert done.returncode == 7
        assert "group A has 1 of 2 workers" in done.stderr
        assert "office-2: set aside: 3 quick failures" in done.stderr
        assert done.stdout == ""


@pytest.mark.long
async def test_a_line_that_breaks_again_and_again_makes_no_storm():
    """Shows: L2; its worker is set aside, and comes back when a person says so."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.master("A")
        await office.joined("office-1", "office-2")
        assert office.events is not None
        host = office.host("office-2")
        for _ in range(FLAPS):
            loss = Loss(office.events, "worker.lost", host.name)
            await host.cut()
            await loss.wait()
            await host.mend()
            await wait_for(
                lambda: linked(office, host.name), within=UP_WITHIN, what="a link"
            )

        note = str((await office.view(host.name))["note"])
        assert "set aside for" in note
        assert "it was lost 4 times" in note
        told = [e.kind for e in office.events.seen if e.worker == host.name]
        # Once at first, and after each loss until it was the fourth.
        assert told.count("worker.joined") <= 4
        assert told.count("worker.lost") == FLAPS
        assert told.count("worker.aside") == 1
        others = [e.kind for e in office.events.seen if e.worker == "office-1"]
        assert others.count("worker.joined") == 1

        last = office.events.last
        await office.laptop.run(
            [*office.laptop.aemesh, "workers", "readmit", host.name]
        )
        await office.joined(host.name, after=last)


async def linked(office: Office, worker: str) -> bool:
    """Whether the master is linked to this worker."""
    state = (await office.view(worker))["state"]
    return state not in ("announced", "linked", "lost")
