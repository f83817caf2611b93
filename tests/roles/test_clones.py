"""One key in two places: told to both, and the link that is up stays."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh import limits
from aemesh.host.store import open_store
from aemesh.model.address import Address
from aemesh.model.group import MemberState
from aemesh.model.names import GroupName
from aemesh.policy.discovery import New, Replayed, Same, Updated
from tests.roles.mesh import PORT, announcement, open_mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aemesh.master.master import Master
    from aemesh.policy.discovery import News
    from tests.roles.mesh import Machine, Mesh

# By then whatever is to come of an announcement has come.
SETTLED_AFTER = 10.0
OFFICE = "office-1"


async def linked(mesh: Mesh) -> Machine:
    machine = await mesh.start_worker(OFFICE)
    await mesh.wait_state(OFFICE, MemberState.LEASED)
    return machine


async def note_of(mesh: Mesh) -> str:
    return (await mesh.wait_worker(OFFICE, lambda _: True)).note


def since(mesh: Mesh) -> list[float]:
    return [view.since for view in mesh.master.workers()]


# --- a worker's -------------------------------------------------------------------


async def test_a_copied_state_directory_is_named_on_both_sides(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows: D8; Threat: 59."""
    caplog.set_level(logging.WARNING)
    async with open_mesh("A") as mesh:
        await linked(mesh)
        before = since(mesh)
        copy = await mesh.start_copy(OFFICE)
        mesh.tell(Updated(announcement(copy)))
        text = await mesh.wait_event("worker.clone")
        await trio.sleep(SETTLED_AFTER)
        mesh.tell(Same(announcement(copy)))
        await trio.sleep(2 * limits.CLONE_AGAIN_AFTER)

        assert text == (
            "office-1's key is used in two places: 10.0.0.2:7472 (linked) and "
            "10.0.0.3:7472: a copied state directory?"
        )
        assert "10.0.0.3:7472" in await note_of(mesh)
        assert since(mesh) == before, "the link that is up stays"
        assert (await mesh.events()).count("worker.clone") == 1
        dialled = [a.host for a in mesh.segment.dialled]
        assert dialled.count("10.0.0.3") == 1
    told = [r.getMessage() for r in caplog.records if "two places" in r.getMessage()]
    second, linked_one = told
    assert "10.0.0.2:7472 (this one) and 10.0.0.3:7472" in linked_one
    assert "linked at 10.0.0.2:7472" in second
    assert all("its own key" in text for text in told)


async def test_a_copy_that_was_heard_of_before_the_link_is_found(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        first = await mesh.start_worker(OFFICE, announce=False)
        copy = await mesh.start_copy(OFFICE)
        mesh.tell(New(announcement(first)))
        mesh.tell(Updated(announcement(copy)))

        text = await mesh.wait_event("worker.clone")

    assert first.ip in text
    assert copy.ip in text


async def test_when_the_linked_one_ends_the_other_is_taken_and_nobody_stays_accused(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        first = await linked(mesh)
        copy = await mesh.start_copy(OFFICE)
        mesh.tell(Updated(announcement(copy)))
        await mesh.wait_event("worker.clone")
        first.scope.cancel()
        await mesh.wait_worker(
            OFFICE, lambda v: v.state == "leased" and v.address.startswith(copy.ip)
        )
        await trio.sleep(SETTLED_AFTER)

        assert await note_of(mesh) == ""
        assert (await mesh.events()).count("worker.clone") == 1


async def test_a_replayed_announcement_of_an_earlier_life_is_no_clone(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows: D8; Threat: 59."""
    caplog.set_level(logging.WARNING)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker(OFFICE)
        await mesh.wait_state(OFFICE, MemberState.LEASED)
        captured = announcement(machine, ip="10.0.0.66")  # where it was once
        machine.scope.cancel()
        await mesh.wait_state(OFFICE, MemberState.LOST)
        await mesh.start_worker(OFFICE)
        await mesh.wait_state(OFFICE, MemberState.LEASED)
        # Another worker of the owner's has that address now: it has another key.
        mesh.machines["other"] = other = await mesh.start_worker("office-2")
        for ip in ("10.0.0.66", other.ip):
            said = announcement(machine, ip=ip)
            for news in (Replayed(captured, said.signed_at), Updated(captured)):
                mesh.tell(news)
                await trio.sleep(SETTLED_AFTER)

        assert "worker.clone" not in await mesh.events()
        assert "two places" not in await note_of(mesh)
    assert "two places" not in caplog.text


async def test_an_old_announcement_and_a_relay_to_the_worker_itself_make_no_clone(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows: D8; Threat: 59."""
    caplog.set_level(logging.WARNING)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker(OFFICE)
        await mesh.wait_state(OFFICE, MemberState.LEASED)
        captured = announcement(machine, ip="10.0.0.66")
        machine.scope.cancel()
        await mesh.wait_state(OFFICE, MemberState.LOST)
        await mesh.start_worker(OFFICE)
        await mesh.wait_state(OFFICE, MemberState.LEASED)
        listeners = mesh.segment.listeners
        relay, there = Address("10.0.0.66", PORT), Address(machine.ip, PORT)
        listeners[relay] = listeners[there]
        mesh.tell(Replayed(captured, captured.signed_at + 1))
        await trio.sleep(SETTLED_AFTER)

        assert relay in mesh.segment.dialled
        assert "worker.clone" not in await mesh.events()
        assert "two places" not in await note_of(mesh)
    assert "two places" not in caplog.text


async def test_a_new_link_shows_again_that_the_key_is_in_two_places(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        first = await linked(mesh)
        copy = await mesh.start_copy(OFFICE)
        mesh.tell(Updated(announcement(first)))
        mesh.tell(Updated(announcement(copy)))
        await mesh.wait_event("worker.clone")
        for _ in range(3):
            link = mesh.master.roster.records[first.identity.key_id].link
            assert link is not None
            link.close("a test")
            await mesh.wait_state(OFFICE, MemberState.LOST)
            await mesh.wait_state(OFFICE, MemberState.LEASED)
            await trio.sleep(SETTLED_AFTER)

            assert "too: a copied state directory" in await note_of(mesh)
        assert (await mesh.events()).count("worker.clone") == 1


async def test_a_worker_that_moved_to_another_address_is_no_clone(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        machine = await linked(mesh)
        mesh.tell(Updated(announcement(machine, ip="10.0.0.77")))
        await trio.sleep(SETTLED_AFTER)

        assert "worker.clone" not in await mesh.events()
        assert "10.0.0.77" not in {a.host for a in mesh.segment.dialled}


async def test_a_worker_killed_and_started_elsewhere_within_a_beat_is_not_accused(
    autojump_clock,
) -> None:
    """Shows: D8, L2."""
    async with open_mesh("A") as mesh:
        machine = await linked(mesh)
        mesh.segment.cut.add(machine.ip)  # its end is not noticed
        machine.scope.cancel()
        again = await mesh.start_copy(OFFICE)
        mesh.tell(Updated(announcement(again)))
        await mesh.wait_worker(
            OFFICE, lambda v: v.state == "leased" and v.address.startswith(again.ip)
        )
        await trio.sleep(SETTLED_AFTER)

        assert await note_of(mesh) == ""
        assert "worker.clone" not in await mesh.events()


async def test_streams_go_where_the_link_goes_whatever_was_announced_last(
    autojump_clock,
) -> None:
    """Threat: 59."""
    async with open_mesh("A") as mesh:
        await linked(mesh)
        copy = await mesh.start_copy(OFFICE)
        mesh.tell(Updated(announcement(copy)))
        await mesh.wait_event("worker.clone")
        mesh.segment.dialled.clear()

        output = [
            item
            async for item in mesh.master.exec(GroupName("A"), ("echo", "hello"), {})
        ]

        assert output
        assert {a.host for a in mesh.segment.dialled} == {"10.0.0.2"}


# --- a master's -------------------------------------------------------------------


class _Told:
    """A finder that tells the same once, and then waits."""

    def __init__(self, *news: News) -> None:
        self._news = news

    async def news(self) -> AsyncIterator[News]:
        for one in self._news:
            yield one
        await trio.sleep_forever()


@asynccontextmanager
async def second_master(mesh: Mesh, *news: News) -> AsyncIterator[Master]:
    """Another process of the master's key, at another address."""
    with open_store(None) as store:
        store.put_group(GroupName("A"), "memory")
        master = mesh.new_master("10.0.0.101", store, finder=_Told(*news))
        async with trio.open_nursery() as nursery:
            await nursery.start(master.run)
            yield master
            nursery.cancel_scope.cancel()


async def test_a_copied_master_does_not_put_out_the_one_that_holds_the_worker(
    autojump_clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows: D8."""
    caplog.set_level(logging.WARNING)
    async with open_mesh("A") as mesh:
        machine = await linked(mesh)
        before = since(mesh)
        async with second_master(mesh, New(announcement(machine))) as second:
            first_said = await mesh.wait_event("master.clone")
            await trio.sleep(SETTLED_AFTER)
            events = [e async for e in second.events(0, follow=False)]
            (shown,) = second.workers()

        assert since(mesh) == before
        assert machine.generation == 1
        (second_said,) = [e.text for e in events if e.kind == "master.clone"]
        assert "10.0.0.1 (this one) and 10.0.0.101" in first_said
        assert "10.0.0.101 (this one) and 10.0.0.1" in second_said
        assert shown.group is None
        assert (await mesh.events()).count("master.clone") == 1
    (line,) = (r.getMessage() for r in caplog.records if "two places" in r.getMessage())
    assert "10.0.0.1:" in line
    assert "10.0.0.101:" in line


async def test_a_master_that_crashed_unnoticed_is_back_within_seconds(
    autojump_clock,
) -> None:
    """Shows: D8, L2."""
    async with open_mesh("A") as mesh:
        machine = await linked(mesh)
        mesh.segment.cut.add("10.0.0.1")
        began = trio.current_time()
        async with second_master(mesh, New(announcement(machine))) as second:
            while not [v for v in second.workers() if v.state == "leased"]:
                await trio.sleep(0.05)

            assert trio.current_time() - began < limits.SUSPECT_AFTER + 1.0
            kinds = [e.kind async for e in second.events(0, follow=False)]
        assert "master.clone" not in kinds
        assert machine.generation == 2


async def test_the_same_process_of_a_master_gets_its_new_link_at_once(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        machine = await linked(mesh)
        assert machine.worker is not None
        (link,) = machine.worker.links.values()
        mesh.segment.cut.add("10.0.0.1")
        mesh.master.roster.records[machine.identity.key_id].link.close("a test")
        await mesh.wait_state(OFFICE, MemberState.LOST)
        mesh.segment.cut.clear()
        began = trio.current_time()
        await mesh.wait_state(OFFICE, MemberState.LEASED)

        assert trio.current_time() - began < limits.CLONE_AFTER
        assert list(machine.worker.links.values()) != [link]
        assert "master.clone" not in await mesh.events()
