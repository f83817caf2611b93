"""An heir whose line to the keeper breaks, or that dies itself, goes on with it all."""

from __future__ import annotations

import trio

from aemesh import limits
from aemesh.model.group import Haste, MemberState
from aemesh.model.names import GroupName
from aemesh.protocol import wire
from tests.roles.mesh import wall
from tests.roles.test_adoption import HEIR_IP, KEPT_AFTER, Office, open_inherited

A = GroupName("A")


async def wait_resumed(office: Office, times: int) -> None:
    """Wait until the engine was found to go on so many times."""
    with trio.fail_after(60):
        while office.engine.told.count("resume A") < times:
            await trio.sleep(0.1)


async def test_an_heir_that_was_cut_off_goes_on_with_the_heads(autojump_clock):
    """Shows: L5; nothing is started anew, and nobody is told lost."""
    async with open_inherited("office-1", "office-2") as office:
        before = {name: office.running(name) for name in office.machines}
        office.segment.cut.add(HEIR_IP)
        await trio.sleep(8)
        office.segment.cut.clear()

        await wait_resumed(office, 2)
        for name in ("office-1", "office-2"):
            view = await office.wait_state(name, MemberState.LEASED)
            assert (view.group, view.generation) == ("A", 1)

        assert {name: office.running(name) for name in office.machines} == before
        assert "group.failed" not in await office.events()
        assert "group.waits" in await office.events()
        told = office.engine.told
        assert sorted(told[-2:]) == ["resume office-1.1", "resume office-2.1"]
        await trio.sleep(2 * limits.ADOPT_AFTER)
        assert not any(line.startswith("lost") for line in told)


async def test_members_stay_as_they_are_while_only_the_keeper_is_out_of_reach(
    autojump_clock,
):
    async with open_inherited("office-1") as office:
        before = office.running("office-1")
        office.segment.cut.add(office.keeper.ip)
        await office.wait_event("group.waits")
        await trio.sleep(8)
        assert office.running("office-1") == before
        (group,) = office.master.groups()
        assert (group.state, group.members) == ("opening", ())
        office.segment.cut.clear()

        view = await office.wait_state("office-1", MemberState.LEASED)

        assert (view.group, view.generation) == ("A", 1)
        assert office.running("office-1") == before
        (group,) = office.master.groups()
        assert (group.state, group.members) == ("ready", ("office-1",))


async def test_a_worker_that_leaves_meanwhile_hands_its_work_over_when_it_is_back(
    autojump_clock,
):
    """It was let go with a receipt of nothing, and all that it had was lost."""
    async with open_inherited("office-1", "office-2") as office:
        machine = office.machines["office-1"]
        office.segment.cut.add(office.keeper.ip)
        await office.wait_event("group.waits")
        assert machine.worker is not None
        end = wall() + 60.0
        machine.worker.parting.agree(end, Haste.LATE, "lunch")
        await trio.sleep(8)
        assert machine.departure is None
        office.segment.cut.clear()
        with trio.fail_after(90):
            while machine.departure is None:
                await trio.sleep(0.05)

        receipt = machine.departure
        assert (receipt.group, receipt.moved, receipt.lost) == ("A", 1, 0)
        assert office.engine.told[-1] == "retire office-1.1"
        assert end - limits.DEPARTURE_MOVED_BEFORE <= wall() <= end


async def test_a_head_whose_stream_alone_broke_is_attached_to_again(autojump_clock):
    async with open_inherited("office-1") as office:
        before = {name: office.running(name) for name in office.machines}
        worker = office.keeper.worker
        assert worker is not None
        for running in worker.held.leased.running:
            running.stream.hang_up()

        await wait_resumed(office, 2)

        view = await office.wait_state("office-1", MemberState.LEASED)
        assert view.generation == 1
        assert {name: office.running(name) for name in office.machines} == before


async def test_a_keeper_that_does_not_come_back_in_time_is_given_up(autojump_clock):
    async with open_inherited("office-1") as office:
        office.segment.cut.add(office.keeper.ip)
        await office.wait_event("group.waits")
        office.keeper.scope.cancel()

        await office.wait_event("master.given-up")
        view = await office.wait_worker("office-1", lambda one: one.generation == 2)

        assert view.group == "A"
        assert len(office.running("office-1")) == 1
        assert office.store.inherited() == {}


async def test_a_head_that_ended_while_the_heir_was_away_is_begun_anew(autojump_clock):
    async with open_inherited("office-1") as office:
        office.segment.cut.add(HEIR_IP)
        await trio.sleep(limits.LOST_AFTER + 1)
        for job in list(office.running("keeper")):
            await job.end(term_after=0.0)
        office.segment.cut.clear()

        view = await office.wait_worker("office-1", lambda one: one.generation == 2)

        assert view.group == "A"
        assert office.engine.told.count("open A") == 2


async def test_an_heir_that_is_killed_adopts_again_what_it_had_inherited(
    autojump_clock,
):
    """Shows: L5."""
    async with open_inherited("office-1", "office-2") as office:
        before = {name: office.running(name) for name in office.machines}
        await office.kill(HEIR_IP, office.heir_scope)

        office.master = await office.start_heir(
            office.store, adopts=office.master_id.key_id
        )
        for name in ("office-1", "office-2"):
            view = await office.wait_state(name, MemberState.LEASED)
            assert (view.group, view.generation) == ("A", 1)

        assert {name: office.running(name) for name in office.machines} == before
        assert office.engine.told.count("open A") == 1


async def test_who_adopts_says_how_long_it_is_waited_for_and_who_may_follow(
    autojump_clock,
):
    async with open_inherited("office-1") as office:
        for name in ("office-1", "keeper"):
            worker = office.machines[name].worker
            assert worker is not None
            lease = worker.held.tenancy.lease
            assert lease is not None
            assert lease.master == office.heir_id.key_id
            assert (lease.kept_after, lease.heirs) == (KEPT_AFTER, frozenset())


async def test_an_older_master_that_says_no_terms_leaves_them_as_they_are(
    autojump_clock,
):
    async with open_inherited("office-1") as office:
        worker = office.machines["office-1"].worker
        assert worker is not None
        before = worker.held.tenancy.lease
        adopt = wire.Adopt(group="A", generation=1)

        await worker.held.adopt(office.heir_id.key_id, adopt)

        assert worker.held.tenancy.lease == before
