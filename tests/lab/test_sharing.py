"""Two analyses that share five hosts, while hosts come and go and two are moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh.testing.lab import LabError
from tests.lab.office import LAB, open_office

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.office import Office

pytestmark = LAB

NAMES = [f"office-{number}" for number in range(1, 6)]
SHARED_WITHIN = 60.0


async def test_two_analyses_share_the_office_and_follow_who_comes_and_goes(
    muons: Path, counts: str
):
    """Shows: G3, G4 (weights, min and max, on real hosts)."""
    async with open_office(["laptop", *NAMES]) as office:
        await office.master("A", "B")
        await office.ask("group", "set", "A", "--max", "3", "--weight", "3")
        await office.ask("group", "set", "B", "--require", 'name!="office-1"')
        agents = {name: await office.worker(name) for name in NAMES}
        await shared(office, A=3, B=2)
        one = await office.analyse("A", muons)
        two = await office.analyse("B", muons)
        for analysis in (one, two):
            await analysis.wait_share(0.02)

        first, second = [n for n in await members(office, "A") if n != "office-1"]
        await agents[first].end()
        office.host(second).kill_all()
        await shared(office, A=2, B=1)  # by weight, and B has its min
        await office.worker(first)
        await shared(office, A=3, B=1)
        views = await office.ask("group", "move", *await members(office, "B"), "A")
        refused = await members(office, "A")
        results = [await one.wait(), await two.wait()]
        (status,) = await office.ask("group", "show", "B")

    assert views[0]["error"] is None
    assert "office-1" in refused
    assert [result["counts_sha256"] for result in results] == [counts] * 2
    reasons = {one["worker"]: one["why"] for one in status["refused"]}
    assert reasons["office-1"] == 'name "office-1", wanted != "office-1"'


async def members(office: Office, group: str) -> list[str]:
    """Return who serves a group now."""
    shown = await office.ask("group", "list")
    return next(list(one["members"]) for one in shown if one["name"] == group)


async def shared(office: Office, **wanted: int) -> None:
    """Wait until the groups have so many members each."""
    have: dict[str, int] = {}
    with trio.move_on_after(SHARED_WITHIN):
        while have != wanted:
            shown = await office.ask("group", "list")
            have = {one["name"]: len(one["members"]) for one in shown}
        return
    msg = f"the groups have {have} members, not {wanted}"
    raise LabError(msg, why=repr(await office.ask("group", "list", "--why")))
