"""A copied state directory is named by all who see it; imposters are shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from aemesh.testing.lab import wait_for
from aemesh.testing.lab_avahi import open_avahi
from tests.lab.office import LAB, open_office, state
from tests.lab.test_stranger import FORGER, SERVICE, forgeries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.office import Office

pytestmark = LAB

PORT = 7472
TROUBLE = {"worker.lost", "worker.suspect", "engine.broken", "engine.report"}


async def test_a_copied_worker_is_named_on_both_machines_and_the_analysis_goes_on(
    muons: Path, counts: str
):
    """Shows: D8; Threat: 59."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        first = await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        assert office.events is not None
        before = await office.view("office-1")

        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.05)
        copy_state(office, "office-1", "office-2", role="worker")
        second = await office.start("office-2", "worker", "--cores", "1")
        told = await office.events.wait("worker.clone", worker="office-1")
        second_said = await second.wait_said(r".*used in two places.*")
        first_said = await first.wait_said(r".*used in two places.*")
        analysis.check_runs()
        during = await office.view("office-1")
        result = await analysis.wait()
        after = await office.view("office-1")

    here, there = (f"{office.host(n).ipv4}:{PORT}" for n in ("office-1", "office-2"))
    assert f"{here} (linked) and {there}" in told.text
    assert f"{here} (this one) and {there}" in first_said[0]
    assert f"linked at {here}" in second_said[0]
    assert there in during["note"]
    assert result["counts_sha256"] == counts
    same = ("name", "key", "state", "group", "generation", "address", "since")
    assert [after[k] for k in same] == [before[k] for k in same]
    kinds = [one.kind for one in office.events.seen]
    assert kinds.count("worker.clone") == 1
    assert not TROUBLE & set(kinds)


async def test_a_worker_that_was_killed_and_started_again_is_not_accused():
    """Shows: D8, L2."""
    async with open_office(["laptop", "office-1"]) as office:
        first = await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        assert office.events is not None
        last = office.events.last
        office.host("office-1").kill_all()
        await first.process.wait()
        again = await office.worker("office-1")
        await office.joined("office-1", after=last)
        view = await office.view("office-1")
        kinds = {one.kind for one in office.events.seen}
        said = again.said

    assert "worker.clone" not in kinds
    assert "two places" not in view["note"]
    assert "two places" not in said


async def test_a_copied_master_is_named_everywhere_and_does_not_take_the_worker():
    """Shows: D8."""
    async with open_office(["laptop", "office-1", "desk"]) as office:
        worker = await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        events = office.events
        assert events is not None
        before = await office.view("office-1")
        copy_state(office, "laptop", "desk", role="master")
        copy = await office.start("desk", "master", "--group", "A", "--accept-new")
        await copy.wait_said("is master of", within=40)
        there = await office.follow(name="desk")
        first_told = await events.wait("master.clone")
        second_told = await there.wait("master.clone", after=0)
        said = await worker.wait_said(r".*used in two places.*")
        after = await office.view("office-1")
        elsewhere = await office.view("office-1", name="desk")

    laptop, desk = office.laptop.ipv4, office.host("desk").ipv4
    assert f"{laptop} (this one) and {desk}" in first_told.text
    assert f"{desk} (this one) and {laptop}" in second_told.text
    assert laptop in said[0]
    assert desk in said[0]
    same = ("state", "group", "generation", "address", "since")
    assert [after[k] for k in same] == [before[k] for k in same]
    assert elsewhere["group"] is None


async def test_an_imposter_is_in_the_status_with_its_address_and_time():
    """Shows: D8, D2; Threat: 59, 60."""
    async with open_office(["laptop", "office-1", "stranger"]) as office:
        await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        before = await office.view("office-1")
        (shown,) = await office.ask("status")
        stranger = office.host("stranger")
        async with open_avahi(stranger) as avahi:
            lines = await avahi.browse(SERVICE)
        forged = json.dumps(list(forgeries(lines)))
        argv = [stranger.python, "-c", FORGER, forged, stranger.ipv4]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        began = time.time()
        async with stranger.open_process(argv, **pipes) as forger:
            assert forger.stdin is not None
            assert forger.stdout is not None
            assert await forger.stdout.receive_some() == b"announced\n"
            found = await wait_for(
                lambda: imposters(office), within=15, what="an imposter in the status"
            )
            await forger.stdin.send_all(b"\n")
            assert await forger.stdout.receive_some() == b"taken back\n"
        table = await office.laptop.run([*office.laptop.aemesh, "status"])
        after = await office.view("office-1")

    assert shown["imposters"] == []
    (one,) = found
    assert one["name"] == "office-1"
    assert one["key"] == before["key"]
    assert f"{stranger.ipv4}:{PORT}" in one["addresses"]
    assert "not signed by that key" in one["reason"]
    assert began - 1 <= one["first_at"] <= one["last_at"] <= time.time() + 1
    assert one["times"] >= 1
    assert "IMPOSTER OF" in table.stdout
    assert stranger.ipv4 in table.stdout
    assert (after["state"], after["since"]) == (before["state"], before["since"])


def copy_state(office: Office, name: str, other: str, *, role: str) -> None:
    """Copy a role's state directory to another host, as a disk image does."""
    source, target = (state(office.host(n), role) for n in (name, other))
    skip = shutil.ignore_patterns("run", "lock", "control*")
    shutil.copytree(source, target, ignore=skip)
    home = office.host(other).home
    owner = home.stat()
    made = [one for one in target.parents if one.is_relative_to(home) and one != home]
    for path in (*made, target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


async def imposters(office: Office) -> list[dict[str, Any]]:
    """Return who is shown as an imposter."""
    (shown,) = await office.ask("status")
    return list(shown["imposters"])
