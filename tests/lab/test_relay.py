"""A real man in the middle: between two terminals, with a key for each of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, Agent, open_office, state

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncIterator

    from tests.lab.office import Office

pytestmark = LAB

CODE = r'(?P<key>SHA256:\S+) — both sides show "(?P<words>[a-z-]+)"'
QUESTION = rf"{CODE}.*; trust it\? \[y/N\] "


@dataclass(frozen=True, slots=True)
class Scene:
    """A worker and a master on terminals that hear nobody but who is between them."""

    office: Office
    worker: Agent
    master: Agent
    relay: Agent

    async def asked(self) -> tuple[re.Match[str], re.Match[str]]:
        """Wait until both ask their people; return the questions."""
        return (
            await self.worker.wait_said(rf"laptop at .*: {QUESTION}$", within=40),
            await self.master.wait_said(rf"office-1 wants to join: {QUESTION}$"),
        )

    async def answer(self, keys: str) -> None:
        """Type the same at both terminals."""
        for agent in (self.worker, self.master):
            assert agent.terminal is not None
            await agent.terminal.type(keys)

    def stored(self) -> str:
        """Return what either side has written down of the other."""
        files = (
            state(self.worker.host, "worker") / "known_masters",
            state(self.master.host, "master") / "known_workers",
        )
        return "".join(file.read_text() for file in files if file.exists())


@asynccontextmanager
async def open_scene(*how: str) -> AsyncIterator[Scene]:
    """Put a relay between an office's two machines: the wire goes through it."""
    async with open_office(["laptop", "office-1", "rogue"]) as office:
        laptop, victim, rogue = office.lab.hosts
        await office.lab.partition([laptop], [victim])
        worker = await office.start(
            "office-1", "worker", "--cores", "1", "--verbose", terminal=True
        )
        await worker.wait_said("offers 1 core", within=40)
        words = ["office-1", "laptop", victim.ipv4, *how]
        log = office.lab.folder / "relay.log"
        with log.open("wb") as file:
            relay = await rogue.start(
                [rogue.python, "-m", "tests.lab.rogue_relay", *words],
                stdout=file,
                stderr=file,
            )
        between = Agent(rogue, relay, log)
        office.agents.append(between)
        await between.wait_said("as master", within=40)
        master = await office.start("laptop", "master", "--group", "A", terminal=True)
        yield Scene(office, worker, master, between)


async def test_a_relay_between_two_terminals_shows_other_words_on_each():
    """Shows: T5; Threat: 2, 28: both ask, and a look at the words tells them."""
    async with open_scene() as scene:
        at_worker, at_master = await scene.asked()
        as_worker = await scene.relay.wait_said(r"as worker (\S+)")
        as_master = await scene.relay.wait_said(r"as master (\S+)")
        said = scene.relay.said
        await scene.answer("n\n")
        await scene.relay.wait_said("came to nothing")
        stored = scene.stored()

    # Each side shows the key of who is between, not the one of the other side.
    assert at_worker["key"] == as_master[1]
    assert at_master["key"] == as_worker[1]
    assert at_worker["words"] != at_master["words"]
    assert f'worker sees "{at_worker["words"]}"' in said
    assert f'master sees "{at_master["words"]}"' in said
    assert "between, for" not in said
    assert stored == ""


async def test_a_relay_that_chooses_its_nonce_after_it_saw_the_other_is_refused():
    """Threat: 28: the worker asks nobody about a master that broke its commitment."""
    async with open_scene("late") as scene:
        await scene.relay.wait_said("worker sees", within=40)
        await scene.worker.wait_said("did not keep to its commitment")
        stored = scene.stored()
        said = scene.worker.said

    assert "wants to use this machine" not in said
    assert stored == ""


async def test_who_says_yes_without_a_look_at_the_words_is_relayed():
    """Threat: 2: the relay of these tests is a real one, and the words all there is."""
    async with open_scene() as scene:
        at_worker, at_master = await scene.asked()
        await scene.answer("y\n")
        await scene.relay.wait_said("between, for control")
        await scene.worker.wait_said("serves group A", within=40)
        await wait_for(scene.stored, within=5, what="a line in a trust file")

    assert at_worker["words"] != at_master["words"]
