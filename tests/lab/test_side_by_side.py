"""Several nodes on one machine, and how soon a master is ready."""

from __future__ import annotations

import signal
from typing import Any

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, UP_WITHIN, Office, open_office

pytestmark = LAB

# The best of these counts: the machine may have something else to do.
TRIES = 5


async def members(office: Office, state: str) -> dict[str, Any]:
    """Return the members of each group of the master in a state directory."""
    groups = await office.ask("group", "list", "--state", state)
    return {group["name"]: group["members"] for group in groups}


async def test_two_masters_and_four_workers_share_one_machine():
    """Shows: A3, G5; each worker is held by one master, and by no other."""
    async with open_office(["desk"]) as office:
        for name in ("red", "blue"):
            words = ["--state", name, "--name", name, "--group", name, "--accept-new"]
            master = await office.start("desk", "master", *words)
            await master.wait_said("is master of", within=UP_WITHIN)
        for name in ("one", "two", "three", "four"):
            words = ["--state", name, "--name", name]
            await office.worker("desk", "--accept-first-master", *words)

        async def held() -> list[str]:
            red, blue = await members(office, "red"), await members(office, "blue")
            return sorted((*red["red"], *blue["blue"]))

        async def all_are_held() -> bool:
            return len(await held()) == 4

        await wait_for(all_are_held, within=UP_WITHIN, what="four members in all")

        assert await held() == ["four", "one", "three", "two"]


async def test_a_second_master_in_one_folder_is_refused_by_name():
    """Shows: A3; one folder is one node."""
    async with open_office(["desk"]) as office:
        first = await office.start("desk", "master", "--group", "red")
        await first.wait_said("is master of", within=UP_WITHIN)

        second = await office.start("desk", "master", "--group", "blue")

        assert await second.wait() == 3
        assert "a master is already running" in second.said


async def test_a_master_answers_once_it_says_that_it_is_ready():
    """Shows: A8 (that it is ready; `make bench` measures how soon)."""
    async with open_office(["desk"]) as office:
        for _ in range(TRIES):
            master = await office.start("desk", "master", "--group", "red")
            await master.wait_said("is master of", within=UP_WITHIN)
            assert await office.ask("status")
            await master.end(signal.SIGINT)
