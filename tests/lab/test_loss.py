"""Machines that die, and cables that are pulled, in the middle of the analysis."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, Loss, engine_pids, gone, open_office

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host

pytestmark = LAB

# What is promised to whoever looks at `aemesh events`.
DEATH_SEEN_WITHIN = 1.0
CUT_SEEN_WITHIN = 5.0

NAMES = ["office-1", "office-2", "office-3", "office-4"]


async def test_engines_agents_and_wardens_may_be_killed_in_between(
    muons: Path, counts: str
):
    """Shows: L2, L7; each comes back, and is used again."""
    async with open_office(["laptop", *NAMES]) as office:
        workers = {name: await office.worker(name) for name in NAMES}
        await office.master("A")
        await office.joined(*NAMES)
        assert office.events is not None

        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.1)
        before = office.events.last
        (engine,) = await engine_pids(office.host("office-1"))
        (forked,) = await engine_pids(office.host("office-4"))
        deaths = []
        for kind, worker, pid in (
            ("engine.report", "office-1", engine),
            ("worker.lost", "office-2", workers["office-2"].pid),
            ("worker.lost", "office-3", workers["office-3"].process.pid),
            ("engine.broken", "office-4", psutil.Process(forked).ppid()),
        ):
            loss = Loss(office.events, kind, worker)
            os.kill(pid, signal.SIGKILL)
            deaths.append(await loss.wait())
        analysis.check_runs()
        for name in ("office-2", "office-3"):
            # Nobody is left there who could end what is left.
            what = f"an empty {name}"
            await wait_for(gone(office.host(name)), within=5, what=what)
            await office.worker(name)
        await office.joined("office-2", "office-3", "office-4", after=before)
        result = await analysis.wait()
        following = await (await office.analyse("A", muons, scales=88)).wait()

        told = "; ".join(map(str, deaths))
        assert max(one.after for one in deaths) < DEATH_SEEN_WITHIN, told
        assert result["counts_sha256"] == counts
        assert following["hosts"] == NAMES, told


async def test_a_pulled_cable_in_between_is_seen_and_mended(muons: Path, counts: str):
    """Shows: L2."""
    async with open_office(["laptop", *NAMES[:3]]) as office:
        for name in NAMES[:3]:
            await office.worker(name)
        await office.master("A")
        await office.joined(*NAMES[:3])
        assert office.events is not None

        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.1)
        host = office.host("office-2")
        loss = Loss(office.events, "worker.lost", host.name)
        await host.cut()
        cut = await loss.wait()
        analysis.check_runs()
        # Dask's own detector needs 11 s; with its last job the lease ends by itself.
        await wait_for(
            lambda: no_engine(host), within=40, what="the end of the cut-off engine"
        )
        await host.mend()
        await office.joined(host.name, after=cut.event.number)
        result = await analysis.wait()
        following = await (await office.analyse("A", muons, scales=88)).wait()

        assert cut.after < CUT_SEEN_WITHIN, str(cut)
        assert result["counts_sha256"] == counts
        assert following["hosts"] == NAMES[:3]


async def no_engine(host: Host) -> bool:
    """Whether nobody listens for Dask there."""
    return not await engine_pids(host)
