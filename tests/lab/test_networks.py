"""Networks that change under a running analysis: it ends right, and all come back.

In each: the same key, nobody is asked again, no worker is there twice.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from aemesh import limits
from aemesh.testing.lab import BRANCH
from tests.lab.office import LAB, TIMES, open_office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.lab.office import Analysis, Events, Office

pytestmark = [*LAB, pytest.mark.long]

NAMES = ["office-1", "office-2"]

# Noticed by the heartbeat (4 s), announced (2 s), dialled (5 s at the latest), joined:
# the promise "within seconds", on a machine that does something else as well.
BACK_WITHIN = 20.0

# The link and the lease are over by then, and the dials of the master as far apart as
# they become in the first minutes; `roles/test_mesh.py` has an hour of it.
ASLEEP_FOR = limits.LOST_AFTER + limits.ORPHANED_JOB_AFTER + 4 * limits.REDIAL_CAP_AFTER

# A person was asked, or a key was not the one that was expected.
APPROVALS = {"trust.request", "trust.waits", "worker.clone", "discovery.imposter"}


class Changed:
    """An analysis in the middle of which a network changes, and who was there."""

    def __init__(self, office: Office, analysis: Analysis, muons: Path) -> None:
        assert office.events is not None
        self.office = office
        self.muons = muons
        self.analysis = analysis
        self.before: list[dict[str, Any]] = []
        self.mark = office.events.last
        self._since = time.time()

    @property
    def events(self) -> Events:
        assert self.office.events is not None
        return self.office.events

    async def note(self) -> None:
        """Note who is there; what follows is the change."""
        self.before = await self.office.ask("workers")
        self.analysis.check_runs()
        self.begin()

    def begin(self) -> None:
        """From this moment on it can be back."""
        self.mark = self.events.last
        self._since = time.time()

    async def back(self, *names: str) -> None:
        """Wait until these have come into the group again, within the promise."""
        for name in names:
            event = await self.events.wait(
                "worker.joined", worker=name, after=self.mark
            )
            took = event.at - self._since
            TIMES.append(f"{name} was back in its group after {took:.1f} s")
            assert took < BACK_WITHIN, TIMES[-1]

    async def check(self, counts: str) -> None:
        """The analysis ends right; all are who they were, once, and serve the next."""
        result = await self.analysis.wait()
        following = await (await self.office.analyse("A", self.muons, scales=88)).wait()
        after = await self.office.ask("workers")
        assert result["counts_sha256"] == counts
        assert following["hosts"] == NAMES
        kinds = {one.kind for one in self.events.seen if one.number > self.mark}
        assert not APPROVALS & kinds
        same = ("name", "key", "trust", "state", "group")
        assert [[one[k] for k in same] for one in after] == [
            [one[k] for k in same] for one in self.before
        ]
        for old, new in zip(self.before, after, strict=True):
            assert new["generation"] >= old["generation"]


@asynccontextmanager
async def open_change(
    muons: Path, *, branch: bool = False, dial: bool = False
) -> AsyncIterator[Changed]:
    """Two workers and a master, with an analysis that has begun; or they dial it."""
    async with open_office(["laptop", *NAMES]) as office:
        if branch:
            await office.lab.open_branch()
        where = ("--master", f"{office.laptop.ipv4}:7472") if dial else ()
        for name in NAMES:
            await office.worker(name, "--accept-first-master", *where)
        await office.master("A")
        await office.joined(*NAMES)
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.05)
        changed = Changed(office, analysis, muons)
        await changed.note()
        yield changed


async def test_a_worker_gets_another_address(muons: Path, counts: str):
    """Shows: D7; the old one is gone, as with a new lease of DHCP."""
    async with open_change(muons) as changed:
        host = changed.office.host("office-1")
        await host.readdress(77)
        await changed.back("office-1")
        view = await changed.office.view("office-1")
        await changed.check(counts)

    assert view["address"].startswith(host.ipv4)


async def test_the_master_gets_another_address(muons: Path, counts: str):
    """Shows: D7; the engine's head is at home at the new one, the client unaware."""
    async with open_change(muons) as changed:
        laptop = changed.office.laptop
        await laptop.readdress(77)
        await changed.back(*NAMES)
        (group,) = await changed.office.ask("group", "list")
        await changed.check(counts)

    assert group["address"] == laptop.ipv4


async def test_an_interface_goes_down_and_comes_up(muons: Path, counts: str):
    """Shows: D7."""
    async with open_change(muons) as changed:
        host = changed.office.host("office-2")
        await host.interface_down()
        await changed.events.wait("worker.lost", worker="office-2", after=changed.mark)
        changed.begin()
        await host.interface_up()
        await changed.back("office-2")
        await changed.check(counts)


async def test_a_flap_that_is_shorter_than_the_patience_is_no_loss(
    muons: Path, counts: str
):
    """Shows: D7; the connection outlives it."""
    async with open_change(muons) as changed:
        host = changed.office.host("office-2")
        await host.cut()
        await trio.sleep(limits.PING_EVERY / 2)  # what is cut is a span of time
        await host.mend()
        await changed.check(counts)
        lost = changed.events.find("worker.lost", after=changed.mark)

    assert not lost


@pytest.mark.parametrize("span", [limits.LOST_AFTER + 1, ASLEEP_FOR])
async def test_a_worker_sleeps_and_resumes(muons: Path, counts: str, span: float):
    """Shows: D7; its processes know nothing of it, nor does its engine."""
    async with open_change(muons) as changed:
        host = changed.office.host("office-1")
        await host.suspend()
        await trio.sleep(span)  # what is tested is a span of time
        changed.begin()
        await host.resume()
        await changed.back("office-1")
        await changed.check(counts)


async def test_the_master_sleeps_and_resumes(muons: Path, counts: str):
    """Shows: D7; with the scheduler and the client, which are on the same machine."""
    async with open_change(muons) as changed:
        laptop = changed.office.laptop
        await laptop.suspend()
        await trio.sleep(ASLEEP_FOR)
        await laptop.resume()
        changed.begin()
        await changed.back(*NAMES)
        await changed.check(counts)


async def test_a_laptop_with_the_master_goes_to_another_network(
    muons: Path, counts: str
):
    """Shows: D7; no multicast passes the router: it dials where its workers were."""
    async with open_change(muons, branch=True) as changed:
        laptop = changed.office.laptop
        await laptop.move(BRANCH, 20)
        await changed.back(*NAMES)
        (group,) = await changed.office.ask("group", "list")
        await changed.check(counts)

    assert group["address"] == laptop.ipv4 == "10.78.0.20"


async def test_a_worker_that_was_told_its_master_goes_to_another_network(
    muons: Path, counts: str
):
    """Shows: D4, D7; it is heard of by nobody, and dials from wherever it is."""
    async with open_change(muons, branch=True, dial=True) as changed:
        host = changed.office.host("office-1")
        await host.move(BRANCH, 20)
        await changed.back("office-1")
        view = await changed.office.view("office-1")
        await changed.check(counts)

    assert view["address"].startswith("10.78.0.20")
