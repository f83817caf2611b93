"""Two masters of two users in one office, on real hosts."""

from __future__ import annotations

from typing import Any

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, UP_WITHIN, Office, open_office

pytestmark = LAB

WORKERS = ("office-1", "office-2", "office-3")


async def held(office: Office) -> dict[str, list[str]]:
    """Return the members of each master's group; no worker is in both.

    Workers go from the laptop to the desk: asked the other way round, one that goes in
    between would be seen in both.
    """
    found: dict[str, list[str]] = {}
    for host in ("desk", "laptop"):
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


# Work that never ends by itself, in pieces that do.
BUSY = """
import time
from distributed import Client, wait

if __name__ == "__main__":
    with Client() as client:
        print("at work", flush=True)
        while True:
            wait(client.map(time.sleep, [0.2] * 4, pure=False))
"""
SPAN = 20.0


@pytest.mark.long
async def test_at_the_end_of_its_span_a_worker_changes_hands_though_it_is_busy():
    """Shows: G5; its owner said `--lease`, and another master waits for it."""
    async with open_office(["laptop", "desk", "office-1"]) as office:
        await office.master("A")
        keys = [await key_of(office, "laptop")]
        second = await office.start("desk", "master", "--group", "B", "--accept-new")
        await second.wait_said("is master of", within=UP_WITHIN)
        keys.append(await key_of(office, "desk"))
        await office.host("desk").cut()
        trust = [word for key in keys for word in ("--trust-master", key)]
        await office.worker("office-1", *trust, "--lease", f"{SPAN:g}s")
        await office.joined("office-1")
        assert office.events is not None
        (joined,) = office.events.find("worker.joined", worker="office-1")
        laptop = office.laptop
        (laptop.home / "busy.py").write_text(BUSY)
        (laptop.home / "busy.py").chmod(0o644)
        await office.start("laptop", "run", "--group", "A", "busy.py")
        await office.agents[-1].wait_said("at work", within=UP_WITHIN)
        await office.host("desk").mend()

        async def changed_hands() -> bool:
            found = await held(office)
            return found == {"laptop": [], "desk": ["office-1"]}

        within = SPAN + 2 * UP_WITHIN
        await wait_for(changed_hands, within=within, what="a worker of the other's")

        (retired,) = office.events.find("worker.retired", worker="office-1")
        assert retired.at - joined.at >= SPAN - 1.0
        assert len(office.events.find("worker.joined", worker="office-1")) == 1
