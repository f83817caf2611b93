"""How workers leave: by a moment, called off, in haste, and without their master."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio

from aemesh import limits
from aemesh.errors import EngineError, RefusedError
from aemesh.master.record import WorkerRecord
from aemesh.model.group import Haste, MemberState
from aemesh.model.names import GroupName
from tests.roles.mesh import Machine, Mesh, open_mesh, wall

A, B = GroupName("A"), GroupName("B")
HOUR = 3600.0


async def serving(mesh: Mesh, name: str = "office-1", group: str = "A") -> Machine:
    machine = mesh.machines.get(name) or await mesh.start_worker(name)
    await mesh.wait_worker(
        name, lambda view: view.state == "leased" and view.group == group
    )
    group_of = mesh.master._groups[GroupName(group)]
    while machine.identity.key_id not in group_of.members:
        await group_of.changed.wait()
    return machine


async def gone(machine: Machine) -> float:
    """Wait until the worker has ended; return when."""
    while machine.departure is None:
        await trio.sleep(0.01)
    return wall()


def agree(machine: Machine, after: float, haste: Haste = Haste.LATE) -> float:
    end = wall() + after
    assert machine.worker is not None
    machine.worker.parting.agree(end, haste, "lunch")
    return end


async def test_a_worker_is_gone_at_the_moment_that_was_agreed(autojump_clock):
    """Shows: L1."""
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        end = agree(machine, 2 * HOUR)

        view = await mesh.wait_worker("office-1", lambda view: view.until > 0.0)
        await trio.sleep(HOUR)
        (busy,) = machine.jobs.running
        at = await gone(machine)

        assert view.until == pytest.approx(end, abs=0.1)
        assert view.state == "leased"
        assert busy.exit is not None
        assert end - limits.DEPARTURE_MOVED_BEFORE <= at <= end
        receipt = machine.departure
        assert receipt is not None
        assert (receipt.member, receipt.group) == ("office-1", "A")
        assert (receipt.moved, receipt.moved_bytes, receipt.lost) == (1, 1000, 0)
        assert receipt.took_after == pytest.approx(595.5, abs=0.5)
        told = mesh.engine.told
        assert told.index("expect office-1.1") < told.index("late office-1.1")
        retired = await mesh.wait_event("worker.retired")
        assert "1 pieces moved (1000 bytes), 0 lost" in retired
        await mesh.wait_state("office-1", MemberState.LEFT)


async def test_a_master_that_does_not_answer_does_not_hold_a_worker(
    autojump_clock, monkeypatch
):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        monkeypatch.setattr(WorkerRecord, "give", lambda *_: None)
        end = agree(machine, 60.0)

        at = await gone(machine)

        assert at <= end + 1.0
        assert machine.jobs.running == []
        assert machine.departure is not None
        assert not machine.departure.graceful  # nobody told what came of it
        assert (machine.departure.member, machine.departure.group) == ("", "A")


async def test_an_engine_that_does_not_end_does_not_hold_a_worker(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        mesh.engine.running[A].retire = never
        end = agree(machine, 60.0)

        at = await gone(machine)

        assert at <= end + 1.0
        assert machine.jobs.running == []
        assert machine.departure is not None
        assert not machine.departure.graceful
        assert machine.departure.member == "office-1"


async def test_a_master_that_goes_away_in_between_does_not_hold_a_worker(
    autojump_clock,
):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        end = agree(machine, 60.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)

        mesh.segment.host("10.0.0.1").cut = True
        for link in list(machine.worker.links.values()):
            link.close("the cable")
        at = await gone(machine)

        assert at <= end + 1.0
        assert machine.jobs.running == []


async def test_a_worker_that_stays_after_all_is_a_full_member_again(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 60.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)

        machine.worker.parting.call_off()
        await mesh.wait_state("office-1", MemberState.LEASED)
        await trio.sleep(120)

        view = await mesh.wait_worker("office-1", lambda _: True)
        assert (view.state, view.group, view.until) == ("leased", "A", 0.0)
        assert view.generation == 1  # it never left
        assert "stays office-1.1" in mesh.engine.told
        assert len(machine.jobs.running) == 1
        assert machine.departure is None
        assert "worker.stays" in await mesh.events()


async def test_a_stay_before_anything_has_begun_is_told_to_the_engine(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 2 * HOUR)
        await mesh.wait_worker("office-1", lambda view: view.until > 0.0)
        await trio.sleep(1)

        machine.worker.parting.call_off()
        await mesh.wait_worker("office-1", lambda view: view.until == 0.0)
        await trio.sleep(3 * HOUR)

        assert mesh.engine.told[-2:] == ["expect office-1.1", "stays office-1.1"]
        assert machine.departure is None


async def test_an_end_that_is_changed_is_the_one_that_counts(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 300.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)

        sooner = agree(machine, 30.0)
        at = await gone(machine)

        assert sooner - limits.DEPARTURE_MOVED_BEFORE <= at <= sooner
        assert machine.departure is not None
        assert machine.departure.moved == 1


async def test_an_end_that_is_put_off_leaves_the_worker_at_work_until_then(
    autojump_clock,
):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 60.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)

        later = agree(machine, 2 * limits.DEPARTURE_LEAD_AFTER)
        await trio.sleep(300)
        view = await mesh.wait_worker("office-1", lambda _: True)
        await trio.sleep(later - wall() - 10.0)
        at = await gone(machine)

        assert (view.state, view.group) == ("leased", "A")
        assert later - limits.DEPARTURE_MOVED_BEFORE <= at <= later


async def test_a_leave_that_was_put_off_and_then_called_off_is_forgotten(
    autojump_clock,
):
    """The master held it for one that leaves, and gave it nothing for ever."""
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 60.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)
        agree(machine, 2 * limits.DEPARTURE_LEAD_AFTER)
        await trio.sleep(300)

        machine.worker.parting.call_off()
        await trio.sleep(300)

        view = await mesh.wait_worker("office-1", lambda _: True)
        assert (view.state, view.group, view.until) == ("leased", "A", 0.0)


async def test_who_leaves_at_once_is_gone_in_two_seconds(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        started = wall()

        machine.worker.parting.agree(None, Haste.NOW, "fire")
        at = await gone(machine)

        assert at - started <= limits.DEPARTURE_QUICK_AFTER
        assert machine.departure is not None
        assert (machine.departure.moved, machine.departure.lost) == (0, 1)
        assert not machine.departure.graceful
        assert "now office-1.1" in mesh.engine.told


async def test_data_that_does_not_fit_is_lost_and_the_end_stands(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        mesh.engine.retire_takes["office-1"] = 1000.0
        end = agree(machine, 20.0)

        at = await gone(machine)

        assert at <= end
        assert machine.departure is not None
        assert (machine.departure.moved, machine.departure.lost) == (0, 1)


async def test_a_worker_that_nobody_holds_waits_for_its_moment(autojump_clock):
    async with open_mesh() as mesh:
        machine = await mesh.start_worker("office-1")
        end = agree(machine, 120.0)

        at = await gone(machine)

        assert end - limits.DEPARTURE_MOVED_BEFORE <= at <= end


async def test_whoever_follows_sees_it_to_the_end(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        agree(machine, 30.0)

        async with aclosing(machine.worker.parting.follow()) as follow:
            views = [view async for view in follow]

        assert views[0].state == "agreed"
        assert "leaving" in {view.state for view in views}
        assert any(view.progress.pieces == 1 for view in views)
        assert views[-1].state == "left"
        await gone(machine)
        assert views[-1].receipt == machine.departure


async def test_a_departure_ends_although_nobody_can_say_how_far_it_is(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        mesh.engine.running[A].progress = unknown
        mesh.engine.retire_takes["office-1"] = 5.0
        agree(machine, 30.0, Haste.SOON)
        await gone(machine)

        assert machine.departure is not None
        assert (machine.departure.graceful, machine.departure.moved) == (True, 1)


async def test_on_its_way_out_it_takes_no_other_word(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        parting = machine.worker.parting
        with pytest.raises(RefusedError, match="nothing to call off"):
            parting.call_off()
        agree(machine, 10.0)
        await gone(machine)

        with pytest.raises(RefusedError, match="too late"):
            parting.call_off()
        with pytest.raises(RefusedError, match="too late"):
            parting.agree(None, Haste.SOON, "again")


# On the master


async def test_a_drained_worker_serves_nobody_until_it_is_taken_back(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)

        (receipt,) = await mesh.master.drain(
            ("office-1",), by_after=30.0, haste=Haste.SOON
        )
        await trio.sleep(300)
        view = await mesh.wait_worker("office-1", lambda _: True)
        drained = (view.state, view.group, "drained" in view.note)
        jobs = list(machine.jobs.running)
        await mesh.master.undrain("office-1")
        await serving(mesh)

        assert (receipt.member, receipt.group, receipt.moved) == ("office-1", "A", 1)
        assert drained == ("draining", None, True)
        assert jobs == []
        assert machine.generation == 2


async def test_an_engine_that_cannot_let_go_keeps_no_worker_from_its_drain(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
):
    """It was in no group then, and held for one: it got nothing any more."""
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        monkeypatch.setattr(mesh.engine.running[A], "retire", refuses)

        (receipt,) = await mesh.master.drain(
            ("office-1",), by_after=30.0, haste=Haste.SOON
        )
        await mesh.master.undrain("office-1")
        await serving(mesh)

        assert not receipt.graceful
        assert mesh.engine.told[1:] == [
            "add office-1.1",
            "lost office-1.1",
            "add office-1.2",
        ]
        assert len(machine.jobs.running) == 1
        assert "engine.broken" in await mesh.events()


async def test_a_receipt_does_not_say_graceful_when_the_engine_could_not_let_go(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        monkeypatch.setattr(mesh.engine.running[A], "retire", refuses)
        agree(machine, 60.0)
        await gone(machine)

        assert machine.departure is not None
        assert machine.departure.group == "A"
        assert not machine.departure.graceful


async def test_a_worker_that_is_named_twice_is_drained_once(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        names = ("office-1", str(machine.identity.key_id))

        (receipt,) = await mesh.master.drain(names, by_after=1.0, haste=Haste.SOON)

        assert (receipt.group, receipt.moved) == ("A", 1)


async def test_a_drain_may_be_called_off_while_it_goes_on(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused_drain, mesh)
            await mesh.wait_state("office-1", MemberState.DRAINING)
            await mesh.master.undrain("office-1")

        await mesh.wait_state("office-1", MemberState.LEASED)
        assert machine.generation == 1


async def test_a_drained_worker_is_drained_still_when_it_comes_back(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await serving(mesh)
        await mesh.master.drain(("office-1",), by_after=1.0, haste=Haste.SOON)

        for link in list(machine.worker.links.values()):
            link.close("the cable")
        mesh.announce(machine, again=True)
        await trio.sleep(60)

        view = await mesh.wait_worker("office-1", lambda _: True)
        assert (view.group, "drained" in view.note) == (None, True)


async def test_a_worker_that_leaves_is_neither_moved_nor_drained(autojump_clock):
    async with open_mesh("A", "B") as mesh:
        machine = await serving(mesh)
        agree(machine, 60.0)
        await mesh.wait_state("office-1", MemberState.DRAINING)

        with pytest.raises(RefusedError, match="it leaves"):
            await mesh.master.move("office-1", B)
        with pytest.raises(RefusedError, match="it leaves already"):
            await mesh.master.drain(("office-1",), by_after=1.0, haste=Haste.SOON)
        with pytest.raises(RefusedError, match="its owner wants it"):
            await mesh.master.undrain("office-1")


async def refused_drain(mesh: Mesh) -> None:
    with pytest.raises(RefusedError, match="called off"):
        await mesh.master.drain(("office-1",), by_after=60.0, haste=Haste.LATE)


async def refuses(member, *, by_after, haste=Haste.SOON):
    what = "the head does not know it"
    raise EngineError(what)


async def unknown(member):
    await trio.lowlevel.checkpoint()
    what = "nobody knows"
    raise EngineError(what)


async def never(member, *, by_after, haste=Haste.SOON):
    await trio.sleep_forever()
