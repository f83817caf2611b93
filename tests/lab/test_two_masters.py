"""Two masters of two users in one office, on real hosts."""

from __future__ import annotations

from typing import Any

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, UP_WITHIN, Office, open_office

pytestmark = LAB

WORKERS = ("office-1", "office-2", "office-3")


async def held(office: Office) -> dict[str, list[str]]:
    """Return the members of each master's group; no worker is in both."""
    found: dict[str, list[str]] = {}
    for host in ("laptop", "desk"):
        (group,) = await office.ask("group", "list", name=host)
        found[host] = sorted(group["members"])
    assert not set(found["laptop"]) & set(found["desk"])
    return found


async def test_an_idle_master_gives_a_worker_to_one_that_has_none():
    """Shows: G5; the first takes all, the second gets one, nobody ever has both."""
    async with open_office(["laptop", "desk", *WORKERS]) as office:
        await office.master("A")
        keys = [await key_of(office, host) for host in ("laptop",)]
        second = await office.start("desk", "master", "--group", "B", "--accept-new")
        await second.wait_said("is master of", within=UP_WITHIN)
        keys.append(await key_of(office, "desk"))
        await office.host("desk").cut()
        trust = [word for key in keys for word in ("--trust-master", key)]
        for name in WORKERS:
            await office.worker(name, *trust)
        await office.joined(*WORKERS)
        await office.host("desk").mend()

        async def shared() -> bool:
            found = await held(office)
            return [len(found[host]) for host in ("laptop", "desk")] == [2, 1]

        await wait_for(shared, within=2 * UP_WITHIN, what="two members and one")

        views: list[dict[str, Any]] = await office.ask("workers", name="desk")
        by_holder = sorted(view["held_by"] for view in views)
        assert by_holder == ["desk", "laptop", "laptop"]
        assert all(view["held_group"] in ("A", "B") for view in views)


async def key_of(office: Office, host: str) -> str:
    (status,) = await office.ask("status", name=host)
    return str(status["key"])
