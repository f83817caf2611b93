"""Groups that share the workers of one master: by demand, by hand, with faults."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio

from aemesh import limits
from aemesh.errors import (
    EngineError,
    GroupIncompleteError,
    RefusedError,
    RequestFailedError,
    UsageError,
)
from aemesh.master.warming import warm_kinds
from aemesh.model.group import Demand, Haste, MemberState
from aemesh.model.names import GroupName
from aemesh.protocol import wire
from tests.roles.mesh import Mesh, open_mesh

A, B, C = GroupName("A"), GroupName("B"), GroupName("C")


def wish(**changed):
    return partial(replace, **changed)


def members(mesh: Mesh, group: str) -> tuple[str, ...]:
    return next(view.members for view in mesh.master.groups() if view.name == group)


def counts(mesh: Mesh) -> dict[str, int]:
    return {view.name: len(view.members) for view in mesh.master.groups()}


async def settled(mesh: Mesh, **wanted: int) -> None:
    """Wait until the groups have so many members each, and stay so."""
    await settled_soon(mesh, **wanted)
    await trio.sleep(2 * limits.SETTLE_CAP_AFTER)
    assert counts(mesh) == wanted


async def settled_soon(mesh: Mesh, **wanted: int) -> None:
    with trio.fail_after(300):
        while counts(mesh) != wanted:
            await trio.sleep(0.05)


async def start(mesh: Mesh, *numbers: int) -> None:
    for number in numbers:
        await mesh.start_worker(f"office-{number}")


async def told(mesh: Mesh, kind: str) -> list[str]:
    history = mesh.master.events(0, follow=False)
    return [event.text async for event in history if event.kind == kind]


async def test_groups_share_by_weight_and_follow_who_comes_and_goes(
    autojump_clock,
) -> None:
    """Shows: G4."""
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(weight=3))
        mesh.master.set_group(B, wish(max=2))
        await start(mesh, 1, 2, 3, 4)
        await settled(mesh, A=3, B=1)

        await start(mesh, 5, 6, 7, 8)
        await settled(mesh, A=6, B=2)
        for number in (1, 2, 3, 4, 5):
            mesh.machines[f"office-{number}"].scope.cancel()
        await settled(mesh, A=2, B=1)
        await start(mesh, 1, 2, 3, 4, 5)
        await settled(mesh, A=6, B=2)


async def test_a_new_group_gets_its_min_from_one_that_has_more(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1, 2, 3)
        await settled(mesh, A=3)
        await mesh.master.open_group(B, "memory", wish=wish(min=2))
        await settled(mesh, A=1, B=2)

        (text, *_) = await told(mesh, "worker.draining")
        assert "B has 0 and wants 2 at least" in text
        for machine in mesh.machines.values():
            assert machine.generation <= 2  # nobody moved twice


async def test_a_plan_asks_once_for_the_terms_of_each_worker(
    autojump_clock, monkeypatch
) -> None:
    """Not once for each group as well: that is a signature each in mode x509."""
    async with open_mesh("A", "B", "C") as mesh:
        await start(mesh, 1, 2, 3)
        await settled(mesh, A=1, B=1, C=1)
        sharing, groups = mesh.master.sharing, mesh.master._groups
        records = list(mesh.master.roster.records.values())
        asked, terms_of = [], mesh.desk.terms_of

        def asking(peer):
            asked.append(peer.name)
            return terms_of(peer)

        monkeypatch.setattr(mesh.desk, "terms_of", asking)
        sharing._look()
        assert sorted(asked) == ["office-1", "office-2", "office-3"]

        asked.clear()
        assert all(warm_kinds(record, groups, sharing) for record in records)
        assert sorted(asked) == ["office-1", "office-2", "office-3"]


async def test_no_group_has_more_than_its_max_not_even_on_the_way(
    autojump_clock,
) -> None:
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(max=2))
        mesh.master.set_group(B, wish(max=1))
        groups, most = mesh.master._groups, {A: 2, B: 1}
        over: list[str] = []

        async def watch() -> None:
            while True:
                over.extend(n for n, most_ in most.items() if groups[n].size > most_)
                await trio.sleep(0.01)

        mesh.nursery.start_soon(watch)
        await start(mesh, 1, 2, 3, 4)
        await settled(mesh, A=2, B=1)
        (free,) = [view for view in mesh.master.workers() if view.state == "trusted"]
        assert free.why == "A has its max of 2, B has its max of 1"
        mesh.master.set_group(B, wish(require='name!="office-1"'))
        await mesh.master.move(members(mesh, "A")[0], A)
        mesh.machines[members(mesh, "B")[0]].scope.cancel()
        await settled(mesh, A=2, B=1)

        assert over == []


async def test_a_group_gets_only_workers_that_have_what_it_requires(
    autojump_clock,
) -> None:
    """Shows: G3."""
    async with open_mesh("A", "B") as mesh:
        await start(mesh, 1, 2)
        await settled(mesh, A=1, B=1)
        view = mesh.master.set_group(A, wish(min=2, require='name!="office-2"'))
        assert view.demand == Demand(min=2, require='name!="office-2"')
        await settled(mesh, A=1, B=1)

        status = mesh.master.group_status(A)

        assert status.group.missing == 1
        assert [one.worker for one in status.members] == ["office-1"]
        (refused,) = status.refused
        assert (refused.worker, refused.group) == ("office-2", "B")
        assert refused.why == 'name "office-2", wanted != "office-2"'
        assert [event.kind for event in status.history if event.worker is None] == [
            "group.ready",
            "group.set",
        ]


async def test_with_too_few_after_the_wait_a_client_is_told_what_is_missing(
    autojump_clock,
) -> None:
    """Shows: G3."""
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(min=2, wait_after=300.0))
        await mesh.start_worker("office-1")
        await mesh.start_worker("office-2", groups=frozenset({B}))
        began = trio.current_time()

        with pytest.raises(GroupIncompleteError, match="has 1 of 2 workers") as caught:
            await mesh.master.connect(A)

        assert trio.current_time() - began == pytest.approx(300.0, abs=1)
        assert "office-2: its owner allows only B" in str(caught.value.why)
        assert "aemesh group show A" in str(caught.value.hint)
        assert caught.value.exit_code == 7


async def test_a_client_waits_until_the_min_is_there(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        mesh.master.set_group(A, wish(min=2, wait_after=300.0))
        await start(mesh, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.master.connect, A)
            await trio.sleep(200)
            assert len(nursery.child_tasks) == 1
            await start(mesh, 2)
            await settled(mesh, A=2)
            assert len(nursery.child_tasks) == 0


async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        for changed in ({"max": 0}, {"weight": 0}, {"require": "cores>="}):
            with pytest.raises(UsageError):
                mesh.master.set_group(A, wish(**changed))
        with pytest.raises(UsageError):
            await mesh.master.open_group(B, "memory", wish=wish(min=-1))

        (view,) = mesh.master.groups()
        assert view.demand == Demand()


async def test_a_demand_outlives_its_master(autojump_clock, tmp_path) -> None:
    path = tmp_path / "state.sqlite"
    async with open_mesh("A", store=path) as mesh:
        await start(mesh, 1, 2, 3)
        mesh.master.set_group(A, wish(weight=7))
        await mesh.master.open_group(B, "memory")
        await settled(mesh, A=2, B=1)
        await mesh.master.move_all(members(mesh, "A"), B)
        await settled(mesh, A=1, B=2)
        machines = mesh.machines

    async with open_mesh(store=path) as again:
        again.machines = machines
        assert again.master.groups()[0].demand.weight == 7
        await start(again, 1, 2, 3)
        with trio.fail_after(60):
            while counts(again)["A"] + counts(again)["B"] < 3:
                await trio.sleep(0.1)
        await settled(again, A=1, B=2)  # those two were moved there by hand


async def test_who_is_moved_by_hand_stays_until_it_is_shared_again(
    autojump_clock,
) -> None:
    """Shows: G2."""
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(weight=9))
        await start(mesh, 1, 2, 3)
        await settled(mesh, A=2, B=1)
        names = members(mesh, "A")

        views = await mesh.master.move_all(names, B)
        await settled(mesh, A=1, B=2)  # the third one makes up for them
        assert set(members(mesh, "B")) == set(names)
        assert all(view.receipt.group == "A" for view in views)
        mesh.master.share(names)

        await settled(mesh, A=2, B=1)


async def test_a_change_of_the_demand_shares_again_who_was_moved(
    autojump_clock,
) -> None:
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(weight=9))
        await start(mesh, 1, 2, 3)
        await settled(mesh, A=2, B=1)
        await mesh.master.move_all(members(mesh, "A"), B)
        await settled(mesh, A=1, B=2)

        mesh.master.set_group(B, wish(weight=2))

        await settled(mesh, A=2, B=1)


async def test_a_move_that_fails_brings_the_worker_back(autojump_clock) -> None:
    """Shows: G2 (a failed join never loses the worker)."""
    async with open_mesh("A") as mesh:
        await start(mesh, 1, 2, 3)
        await settled(mesh, A=3)
        await mesh.master.open_group(B, "memory", wish=wish(min=0, max=0))
        await trio.sleep(1)
        mesh.master.set_group(B, wish(max=2, require='name!="office-3"'))
        await settled(mesh, A=2, B=1)
        (already,) = members(mesh, "B")
        one = next(name for name in members(mesh, "A") if name != "office-3")
        mesh.engine.fails_on.add(one)

        (view,) = await mesh.master.move_all([one], B)
        assert view.error is not None
        assert view.error["error"] == EngineError.name
        assert "the test said so" in str(view.error["why"])
        mesh.engine.fails_on.clear()
        await settled(mesh, A=2, B=1)
        assert members(mesh, "B") == (already,)

        with pytest.raises(RefusedError, match="cannot serve B"):
            await mesh.master.move_all([one, "office-3"], B)  # both, or none
        await settled(mesh, A=2, B=1)


async def test_a_move_whose_place_is_given_to_another_frees_the_worker(
    autojump_clock,
) -> None:
    """It waited for room that nobody was to make for it, and obeyed nobody any more."""
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(B, wish(max=1))
        await start(mesh, 1, 2)
        await settled(mesh, A=1, B=1)
        (mover,) = members(mesh, "A")
        mesh.engine.retire_takes[mover] = 5.0

        async with trio.open_nursery() as nursery:
            views = []

            async def move() -> None:
                views.extend(await mesh.master.move_all([mover], B))

            nursery.start_soon(move)
            await mesh.wait_state(mover, MemberState.DRAINING)
            await trio.sleep(1)  # who made room is in A by now
            mesh.master.set_group(B, wish(require=f'name!="{mover}"'))

        await settled(mesh, A=1, B=1)
        assert views[0].error is not None
        assert "does not go to B any more" in str(views[0].error["what"])
        assert members(mesh, "A") == (mover,)
        (receipt,) = await mesh.master.drain((mover,), by_after=1.0, haste=Haste.SOON)
        assert receipt.group == "A"


async def test_a_move_that_waits_for_room_can_be_drained_and_moved_elsewhere(
    autojump_clock,
) -> None:
    async with open_mesh("A", "B", "C") as mesh:
        for name in (A, B, C):
            mesh.master.set_group(name, wish(min=0, max=1))
        await start(mesh, 1, 2)
        await settled(mesh, A=1, B=1, C=0)
        (mover,), (other,) = members(mesh, "A"), members(mesh, "B")
        mesh.engine.retire_takes[other] = 20.0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.master.move_all, [mover], B)
            await mesh.wait_state(mover, MemberState.TRUSTED)
            await mesh.master.move(mover, C)

        await settled(mesh, A=1, B=0, C=1)
        assert members(mesh, "C") == (mover,)
        assert mesh.master.roster.find(mover).pinned == C


async def test_a_failed_move_from_a_group_that_is_gone_frees_the_worker(
    autojump_clock,
) -> None:
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(B, wish(min=0, max=1))
        await start(mesh, 1)
        await settled(mesh, A=1, B=0)
        mesh.engine.fails_on.add("office-1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.master.move_all, ["office-1"], B)
            await mesh.wait_event("worker.retired")
            await mesh.master.close_group(A)

        view = await mesh.wait_state("office-1", MemberState.TRUSTED)
        assert view.group is None
        mesh.engine.fails_on.clear()
        await settled(mesh, B=1)


async def test_a_command_of_the_group_that_a_worker_left_is_refused(
    autojump_clock,
) -> None:
    """Shows: G2 (late messages are refused by generation)."""
    async with open_mesh("A", "B") as mesh:
        await start(mesh, 1)
        await settled(mesh, A=1, B=0)
        machine = mesh.machines["office-1"]
        record = mesh.master.roster.find("office-1")
        await mesh.master.move("office-1", B)
        jobs = list(machine.jobs.running)
        old = machine.generation - 1

        for late in (
            wire.Start(job="late", generation=old, argv=("cat",)),
            wire.Assign(group="A", generation=old),
        ):
            with pytest.raises(RequestFailedError):
                await record.link.request(late, wire.Done)
        await record.link.request(
            wire.Release(generation=old, term_after=0.0), wire.Done
        )

        assert machine.jobs.running == jobs
        assert members(mesh, "B") == ("office-1",)


async def test_a_black_hole_is_set_aside_and_can_be_taken_back(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1)
        await settled(mesh, A=1)
        mesh.engine.fails_on.add("office-2")
        await start(mesh, 2)
        text = await mesh.wait_event("worker.aside")
        assert "office-2 is set aside for 60 s: 3 quick failures" in text

        (view,) = [v for v in mesh.master.workers() if v.name == "office-2"]
        assert "set aside for" in view.note
        (refused,) = mesh.master.group_status(A).refused
        assert "3 quick failures" in refused.why
        failures = len(await told(mesh, "worker.failed"))
        await trio.sleep(limits.ASIDE_AFTER - 5)
        assert len(await told(mesh, "worker.failed")) == failures

        mesh.engine.fails_on.clear()
        mesh.master.readmit("office-2")
        await settled(mesh, A=2)


async def test_a_set_aside_worker_is_tried_again_by_itself(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1)
        await settled(mesh, A=1)
        mesh.engine.fails_on.add("office-2")
        await start(mesh, 2)
        await mesh.wait_event("worker.aside")
        mesh.engine.fails_on.clear()

        await settled(mesh, A=2)


async def test_when_all_fail_it_is_no_workers_fault(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        mesh.engine.fails_on |= {"office-1", "office-2"}
        await start(mesh, 1, 2)
        await trio.sleep(120)
        mesh.engine.fails_on.clear()
        await settled(mesh, A=2)

        assert await told(mesh, "worker.aside") == []


async def test_a_member_on_which_commands_fail_at_once_is_set_aside(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1, 2)
        await settled(mesh, A=2)
        jobs = mesh.machines["office-2"].jobs

        async def run() -> None:
            [one async for one in mesh.master.exec(A, ("echo", "hello"), {})]

        for breaks in (True, True, False, True, True):
            jobs.broken = {"echo"} if breaks else set()
            await run()
        assert await told(mesh, "worker.aside") == []  # never three in a row
        await run()
        (text,) = await told(mesh, "worker.aside")
        assert "office-2 is set aside for 60 s: 3 quick failures" in text
        await settled_soon(mesh, A=1)


async def test_a_label_is_told_and_can_be_required(autojump_clock) -> None:
    async with open_mesh("A", "B") as mesh:
        mesh.master.set_group(A, wish(require='"gpu" in labels'))
        await mesh.start_worker("office-1", labels=("gpu",))
        await mesh.start_worker("office-2")
        await settled(mesh, A=1, B=1)

        assert members(mesh, "A") == ("office-1",)
        (view,) = [v for v in mesh.master.workers() if v.name == "office-1"]
        assert view.labels == ("gpu",)
        (refused,) = mesh.master.group_status(A).refused
        assert refused.why == 'no label "gpu"'


async def test_a_flapping_link_makes_no_storm(autojump_clock) -> None:
    async with open_mesh("A", "B") as mesh:
        await start(mesh, 1, 2, 3, 4)
        await settled(mesh, A=2, B=2)
        machine = mesh.machines["office-1"]
        for _ in range(30):
            machine.scope.cancel()
            await trio.sleep(10)
            await start(mesh, 1)
            await trio.sleep(10)

        moved = [
            text
            for text in await told(mesh, "worker.draining")
            if not text.startswith("office-1 ")
        ]
        assert len(moved) <= 6
        assert "was lost 4 times" in (await told(mesh, "worker.aside"))[0]
