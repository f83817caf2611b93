"""A master that is asked from another machine."""

from __future__ import annotations

import json

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, Agent, Office, open_office

pytestmark = LAB


async def ask(office: Office, name: str, *words: str) -> Agent:
    """Start a command on a host that asks the laptop's master."""
    where = f"{office.laptop.ipv4}:7472"
    return await office.start(name, *words, "--master", where)


async def test_a_group_is_asked_about_from_another_machine():
    """Shows: G6; a member about its group, and a desk that a person let observe."""
    async with open_office(["laptop", "desk", "office-1"]) as office:
        await office.worker("office-1")
        await office.start("laptop", "master", "--group", "A", "--port", "7472")
        laptop = office.laptop

        async def accept(name: str, *options: str) -> None:
            async def waits() -> bool:
                return any(
                    one["name"] == name for one in await office.ask("trust", "list")
                )

            await wait_for(waits, within=20, what=f"a request of {name}")
            await laptop.run([*laptop.aemesh, "trust", "accept", name, *options])

        await accept("office-1")
        office.events = await office.follow()
        await office.joined("office-1")
        (shown,) = await office.ask("key", "show", "--role", "master")

        unknown = await ask(office, "desk", "status")
        assert await unknown.wait() == 4
        assert f"--trust-master {shown['key']}" in unknown.said
        words = ("--trust-master", str(shown["key"]))
        asking = await ask(office, "desk", "group", "show", "A", "--json", *words)
        await asking.wait_said("does not know our key")
        await accept("desk", "--observe")
        assert await asking.wait() == 0
        status = json.loads(asking.said.splitlines()[-1])
        assert [one["worker"] for one in status["members"]] == ["office-1"]

        for command in (("status",), ("workers",), ("group", "list", "--why")):
            again = await ask(office, "desk", *command, *words)
            assert await again.wait() == 0
            assert "office-1" in again.said
        # No worker of that name came of it.
        assert [one["name"] for one in await office.ask("workers")] == ["office-1"]

        member = await ask(office, "office-1", "events", "--json")
        assert await member.wait() == 0, member.said
        events = [json.loads(line) for line in member.said.splitlines()]
        assert "worker.joined" in {one["kind"] for one in events}
        assert {one["group"] for one in events} == {"A"}
