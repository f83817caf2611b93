"""Two groups of one master, each with an analysis, and a worker that changes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from tests.lab.office import LAB, open_office

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.office import Office

pytestmark = LAB

NAMES = ["office-1", "office-2", "office-3", "office-4"]


async def test_a_worker_moves_from_one_analysis_to_the_other_while_both_run(
    muons: Path, counts: str
):
    """Shows: G1, G2."""
    async with open_office(["laptop", *NAMES]) as office:
        for name in NAMES:
            await office.worker(name)
        await office.master("A", "B")
        await office.joined(*NAMES)
        assert office.events is not None
        before = await members(office)

        one = await office.analyse("A", muons)
        two = await office.analyse("B", muons)
        for analysis in (one, two):
            await analysis.wait_share(0.05)
        mover = before["A"][0]
        generation = (await office.view(mover))["generation"]
        mark = office.events.last
        seen: list[dict[str, list[str]]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, office, seen)
            (moved_view,) = await office.ask("group", "move", mover, "B")
            receipt = moved_view["receipt"]
            await office.joined(mover, after=mark)
            nursery.cancel_scope.cancel()
        one.check_runs()
        two.check_runs()
        moved = await office.view(mover)
        results = [await one.wait(), await two.wait()]

    assert [len(names) for names in before.values()] == [2, 2]
    assert receipt["graceful"]
    assert receipt["lost"] == 0
    assert (moved["state"], moved["group"]) == ("leased", "B")
    assert moved["generation"] == generation + 1
    assert all(mover not in set(now["A"]) & set(now["B"]) for now in seen)
    story = [one.kind for one in office.events.seen[mark:] if one.worker == mover]
    assert story == ["worker.draining", "worker.retired", "worker.joined"]
    assert [result["counts_sha256"] for result in results] == [counts] * 2
    assert set(results[0]["hosts"]) & set(before["A"])
    assert mover in results[1]["hosts"]


async def members(office: Office) -> dict[str, list[str]]:
    """Return who is in each group."""
    shown: list[dict[str, Any]] = await office.ask("group", "list")
    return {group["name"]: list(group["members"]) for group in shown}


async def watch(office: Office, seen: list[dict[str, list[str]]]) -> None:
    """Look who is where, again and again."""
    while True:
        seen.append(await members(office))
