"""Master and workers together, in memory: joining, moving, leaving, losing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from aemesh import limits
from aemesh.errors import (
    EngineError,
    GroupIncompleteError,
    RefusedError,
    SettingsError,
    UnknownNameError,
    UnreachableError,
    UsageError,
)
from aemesh.host.keys.keystore import Identity
from aemesh.model.group import MemberState
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import KnownPeer, RevokedKey, Role, Terms, TrustBook
from aemesh.net.link import Link
from aemesh.policy.clones import SecondLink
from aemesh.policy.discovery import New
from aemesh.policy.trust import TrustPolicy
from aemesh.worker.worker import Worker
from tests.roles.mesh import Machine, Mesh, announcement, open_mesh

A, B = GroupName("A"), GroupName("B")


async def serving(mesh: Mesh, name: str, group: str) -> None:
    await mesh.wait_worker(
        name, lambda view: view.state == "leased" and view.group == group
    )
    await mesh.wait_worker(name, lambda _: name in members(mesh, group))


def members(mesh: Mesh, group: str) -> tuple[str, ...]:
    return next(view.members for view in mesh.master.groups() if view.name == group)


async def test_a_worker_that_is_announced_serves_the_group(autojump_clock) -> None:
    """Shows: A2, L4."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")

        assert machine.generation == 1
        assert mesh.engine.told == ["open A", "add office-1.1"]
        (job,) = machine.jobs.running
        assert set(job.tls) == {"ca.pem", "cert.pem", "key.pem"}


async def test_workers_are_spread_over_the_groups(autojump_clock) -> None:
    """Shows: G1."""
    async with open_mesh("A", "B") as mesh:
        for number in range(4):
            name = f"office-{number}"
            await mesh.start_worker(name)
            await mesh.wait_state(name, MemberState.LEASED)
            await mesh.wait_worker(
                name, lambda v: v.name in members(mesh, v.group or "A")
            )

        assert len(members(mesh, "A")) == len(members(mesh, "B")) == 2


async def test_a_worker_moves_to_another_group(autojump_clock) -> None:
    """Shows: G2 (move)."""
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        await mesh.master.open_group(B, "memory")

        receipt = await mesh.master.move("office-1", B)
        await serving(mesh, "office-1", "B")

        assert (receipt.graceful, receipt.moved, receipt.group) == (True, 1, "A")
        told = mesh.engine.told
        assert told.index("retire office-1.1") < told.index("add office-1.2")
        assert mesh.machines["office-1"].generation == 2
        assert members(mesh, "A") == ()


async def test_a_worker_leaves_with_a_receipt(autojump_clock) -> None:
    """Shows: L1."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        assert machine.worker is not None

        machine.worker.leave("it is five o'clock")
        await mesh.wait_state("office-1", MemberState.LEFT)

        await mesh.wait_worker("office-1", lambda _: machine.departure is not None)
        assert machine.departure is not None
        assert machine.departure.moved == 1
        assert not machine.jobs.running
        assert "worker.left" in await mesh.events()


async def test_a_cut_worker_is_lost_at_the_deadline_and_comes_back(
    autojump_clock,
) -> None:
    """Shows: L2."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        lost_after = await _kill(mesh, machine.scope)

        assert lost_after < limits.LOST_AFTER + 0.1
        assert not machine.jobs.running
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        assert machine.generation == 2
        assert mesh.engine.told[-2:] == ["lost office-1.1", "add office-1.2"]


async def _kill(mesh: Mesh, scope: trio.CancelScope) -> float:
    started = trio.current_time()
    scope.cancel()
    await mesh.wait_state("office-1", MemberState.LOST)
    return trio.current_time() - started


async def test_who_was_given_up_long_ago_is_dialled_at_once_in_another_network(
    autojump_clock,
) -> None:
    """Shows: D7; no multicast says that it is there."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        before = await mesh.wait_state("office-1", MemberState.LEASED)
        mesh.segment.cut.add(machine.ip)
        await mesh.wait_state("office-1", MemberState.LOST)
        await trio.sleep(3600)
        mesh.segment.cut.clear()
        moved_at = trio.current_time()

        mesh.move()
        after = await mesh.wait_state("office-1", MemberState.LEASED)

        assert trio.current_time() - moved_at < 1
        assert (after.key, after.group) == (before.key, before.group)
        assert after.generation > before.generation


async def test_a_name_is_known_again_after_a_restart_of_the_master(
    autojump_clock, tmp_path
) -> None:
    path = tmp_path / "state.sqlite"
    async with open_mesh("A", "B", store=path) as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        home = mesh.master.workers()[0].group

    async with open_mesh(store=path) as again:
        again.machines["office-1"] = machine
        await again.start_worker("office-1")
        view = await again.wait_state("office-1", MemberState.LEASED)

        assert view.group == home
        assert view.generation == 2


async def test_a_broken_engine_node_is_brought_up_anew(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        running = mesh.engine.running[A]

        running.group.member_broken(running.members["office-1.1"], "the test said so")
        await mesh.wait_worker(
            "office-1", lambda v: v.generation == 2 and v.state == "leased"
        )

        assert "engine.broken" in await mesh.events()


async def test_an_engine_that_does_not_come_up_is_told_and_tried_again(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        mesh.engine.fails_on.add("office-1")
        await mesh.start_worker("office-1")
        text = await mesh.wait_event("worker.failed")
        assert "the test said so" in text
        assert mesh.machines["office-1"].jobs.running == []

        mesh.engine.fails_on.clear()
        await serving(mesh, "office-1", "A")


async def test_a_group_whose_engine_died_gets_a_new_one(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")

        mesh.engine.dies.set()
        await mesh.wait_event("group.failed")
        await mesh.wait_worker(
            "office-1", lambda v: v.generation == 2 and v.state == "leased"
        )

        assert mesh.engine.told.count("open A") == 2


async def test_an_engine_that_ran_for_long_does_not_pay_for_its_former_failures(
    autojump_clock,
) -> None:
    async def pause() -> float:
        """Have the engine die; return how long the group waited for the next one."""
        count = mesh.engine.told.count("open A")
        mesh.engine.dies.set()
        died_at = trio.current_time()
        while mesh.engine.told.count("open A") == count:
            await trio.sleep(0.1)
        return trio.current_time() - died_at

    async with open_mesh("A") as mesh:
        await mesh.wait_event("group.ready")
        assert [round(await pause()) for _ in range(4)] == [1, 2, 4, 8]

        await trio.sleep(3600)
        assert [round(await pause()) for _ in range(2)] == [1, 2]


async def test_exec_runs_on_every_member_of_any_group(autojump_clock) -> None:
    """Shows: E4."""
    async with open_mesh("A") as mesh:
        for name in ("office-1", "office-2"):
            await mesh.start_worker(name)
            await serving(mesh, name, "A")

        said = [
            (o.worker, o.channel, o.code)
            async for o in mesh.master.exec(A, ("echo", "hello"), {})
        ]

        assert sorted(s for s in said if s[2] is None) == [
            ("office-1", "stdout", None),
            ("office-2", "stdout", None),
        ]
        assert sorted(s[0] for s in said if s[2] == 0) == ["office-1", "office-2"]


async def test_a_command_that_cannot_start_exits_with_127(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")

        said = [o async for o in mesh.master.exec(A, ("no-such-program",), {})]

        assert [o.code for o in said] == [127]
        assert "no such program" in said[0].reason


async def test_an_unknown_worker_waits_until_it_is_accepted(autojump_clock) -> None:
    """Shows: T4."""
    ask = TrustPolicy(role=Role.MASTER)
    async with open_mesh("A", policy=ask) as mesh:
        await mesh.start_worker("office-1")
        text = await mesh.wait_event("trust.request")
        key_id = mesh.machines["office-1"].identity.key_id
        assert str(key_id) in text
        assert key_id.words in text
        assert mesh.engine.told == ["open A"]

        desk = mesh.master._parts.desk
        desk.accept(desk.waiting[key_id], via="prompt")
        asked_at = trio.current_time()
        await serving(mesh, "office-1", "A")

        assert trio.current_time() - asked_at < 1.0


async def test_a_declined_worker_stays_out(autojump_clock) -> None:
    ask = TrustPolicy(role=Role.MASTER)
    async with open_mesh("A", policy=ask) as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_event("trust.request")
        desk = mesh.master._parts.desk

        desk.decline(desk.waiting[machine.identity.key_id])
        view = await mesh.wait_worker("office-1", lambda v: v.trust == "declined")

        assert view.group is None
        assert desk.book.known == ()


async def test_a_closed_group_gives_its_workers_to_the_others(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        await mesh.master.open_group(B, "memory")

        group = mesh.engine.running[A].group
        assert not group.closing
        await mesh.master.close_group(A)
        assert group.closing
        await serving(mesh, "office-1", "B")

        assert [view.name for view in mesh.master.groups()] == ["B"]
        assert "retire office-1.1" in mesh.engine.told


async def test_the_true_address_is_tried_when_a_spoofed_one_fails(
    autojump_clock,
) -> None:
    """Threat: 59."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1", announce=False)
        liar = await mesh.start_worker("liar", announce=False)
        mesh.tell(New(announcement(machine, ip=liar.ip)))
        await mesh.wait_event("worker.unlinked")

        mesh.announce(machine, again=True)
        await serving(mesh, "office-1", "A")

        assert not liar.jobs.jobs


async def test_a_master_that_stops_lets_its_workers_go(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")

        mesh.master.stop()
        with trio.fail_after(60):
            # The memory engine tells nobody, and the clock is virtual.
            while machine.jobs.running or "close A" not in mesh.engine.told:
                await trio.sleep(0.05)

        assert "retire office-1.1" in mesh.engine.told


async def test_what_does_not_exist_is_named(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        with pytest.raises(UnknownNameError, match="unknown group"):
            await mesh.master.move("office-1", B)
        with pytest.raises(UnknownNameError, match="unknown worker"):
            await mesh.master.move("office-1", A)
        with pytest.raises(UnknownNameError, match="unknown engine"):
            await mesh.master.open_group(B, "spark")
        with pytest.raises(SettingsError, match="group A is there already"):
            await mesh.master.open_group(A, "command")


async def test_a_name_that_several_workers_share_is_not_guessed(
    autojump_clock,
) -> None:
    async with open_mesh("A", policy=TrustPolicy(role=Role.MASTER)) as mesh:
        first = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LINKED)
        del mesh.machines["office-1"]  # another machine of the same name
        second = await mesh.start_worker("office-1")
        await trio.sleep(limits.DIAL_AFTER)  # on a clock that jumps

        with pytest.raises(UsageError, match="several workers go by") as caught:
            await mesh.master.move("office-1", A)

        for machine in (first, second):
            assert str(machine.identity.key_id) in str(caught.value.why)


async def test_connect_says_why_a_group_has_no_workers(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        with pytest.raises(GroupIncompleteError, match="no worker was found"):
            await mesh.master.connect(A)


async def test_connect_says_that_a_group_may_have_no_workers(autojump_clock) -> None:
    """As one may be left by a process that was killed while it followed the load."""
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")
        mesh.master.set_group(A, lambda demand: replace(demand, min=0, max=0))
        await mesh.wait_worker("office-1", lambda worker: worker.group is None)

        with pytest.raises(GroupIncompleteError, match="its max is 0") as caught:
            await mesh.master.connect(A)
        assert "aemesh group set A --max" in str(caught.value.hint)


async def test_a_worker_that_is_not_linked_cannot_be_moved(autojump_clock) -> None:
    async with open_mesh("A", "B") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        await _kill(mesh, machine.scope)

        with pytest.raises((UnreachableError, EngineError)):
            await mesh.master.move("office-1", B)


async def test_a_flood_of_names_puts_no_worker_of_ours_out(
    autojump_clock, monkeypatch
) -> None:
    """Threat: 61."""
    monkeypatch.setattr(limits, "NAMES_SEEN", 50)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await serving(mesh, "office-1", "A")

        for number in range(200):
            await trio.lowlevel.checkpoint()
            stranger = Machine(
                NodeName(f"s-{number}"), "10.0.9.9", Identity.ephemeral("s")
            )
            await mesh.tell_later(New(announcement(stranger)))
            mesh.master.roster.check()
        await mesh.wait_worker("s-199", lambda _: True)

        assert len(mesh.master.roster.records) == 50
        assert members(mesh, "A") == ("office-1",)
        assert machine.jobs.running


async def test_room_for_a_stranger_is_found_with_one_look_at_the_files(
    autojump_clock, monkeypatch
) -> None:
    """Workers that are known and away stand before it in the table.  Threat: 61."""
    monkeypatch.setattr(limits, "NAMES_SEEN", 20)
    async with open_mesh("A") as mesh:
        away = [
            Machine(NodeName(f"w-{number}"), "10.0.9.9", Identity.ephemeral("w"))
            for number in range(20)
        ]
        known = (KnownPeer(one.name, one.identity.public, "", "") for one in away[:-1])
        mesh.desk.memory.put(TrustBook(known=tuple(known)))
        for machine in away:
            await mesh.tell_later(New(announcement(machine)))
        await mesh.wait_worker("w-19", lambda _: True)
        roster, looks = mesh.master.roster, []

        monkeypatch.setattr(mesh.desk.memory, "refresh", lambda: looks.append(1))
        roster._make_room()

        assert len(looks) == 1
        assert {one.name for one in roster.records.values()} == {
            one.name for one in away[:-1]
        }


async def test_a_worker_serves_only_the_groups_that_its_owner_allows(
    autojump_clock,
) -> None:
    """Shows: G1 (a worker may be allowed in a list of groups)."""
    async with open_mesh("A", "B", "C") as mesh:
        await mesh.start_worker("office-1", groups=frozenset({B, GroupName("C")}))
        await serving(mesh, "office-1", "B")

        with pytest.raises(RefusedError, match="its owner allows only B, C"):
            await mesh.master.move("office-1", A)
        await mesh.master.move("office-1", GroupName("C"))
        await serving(mesh, "office-1", "C")

        await mesh.master.close_group(GroupName("C"))
        await serving(mesh, "office-1", "B")
        await mesh.master.close_group(B)
        await mesh.wait_worker("office-1", lambda view: view.group is None)
        assert members(mesh, "A") == ()


async def test_a_known_worker_keeps_its_name_whatever_it_says(autojump_clock) -> None:
    """Threat: 21 (the name of another that is not taken yet)."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-3")
        await serving(mesh, "office-3", "A")
        machine.scope.cancel()
        await mesh.wait_state("office-3", MemberState.LOST)

        mesh.machines["office-9"] = machine
        machine.name = NodeName("office-9")
        machine.identity.name = "office-9"
        await mesh.start_worker("office-9")
        await mesh.wait_worker("office-3", lambda view: view.generation == 2)
        await serving(mesh, "office-3", "A")

        assert [view.name for view in mesh.master.workers()] == ["office-3"]


async def test_a_bug_of_an_engine_ends_neither_master_nor_group(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        mesh.engine.bug_on.add("office-1")
        await mesh.start_worker("office-1")
        text = await mesh.wait_event("worker.failed")
        assert "met a bug when adding office-1: ZeroDivisionError" in text

        mesh.engine.bug_on.clear()
        await serving(mesh, "office-1", "A")


@pytest.mark.parametrize("role", [Role.WORKER, Role.MASTER])
async def test_a_line_that_allows_a_group_no_more_ends_its_lease(
    autojump_clock, role: Role
) -> None:
    """Who narrows `groups=` does not have to wait until the lease ends.  Shows: T4."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        desk = mesh.desk if role is Role.MASTER else machine.desk
        terms = Terms(groups=("B",))
        lines = tuple(replace(one, terms=terms) for one in desk.book.known)
        assert lines
        desk.memory.put(TrustBook(known=lines))
        desk.memory.tell_changed()

        with trio.fail_after(60):
            while machine.worker.held.tenancy.lease is not None:
                await trio.sleep(0.1)
        await trio.sleep(30)
        assert machine.worker.held.tenancy.lease is None
        assert [view.members for view in mesh.master.groups()] == [()]


async def test_trust_that_is_withdrawn_while_a_link_waits_for_its_place_is_withdrawn(
    autojump_clock, monkeypatch
) -> None:
    """It was judged before, and is in no table yet.  Threat: 43."""

    async def withdrawn(worker: Worker, link: Link) -> bool:
        key = link.peer.key
        dead = RevokedKey(key.key_id, key.openssh)
        worker._parts.desk.memory.put(TrustBook(revoked=(dead,)))
        worker._parts.desk.memory.tell_changed()
        await trio.sleep(1)
        return await worker.links.settle(link) is SecondLink.TAKES

    monkeypatch.setattr(Worker, "_takes_place", withdrawn)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await trio.sleep(10)

        assert machine.worker.links == {}
