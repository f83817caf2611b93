"""A master that is killed leaves what runs to whoever comes: itself, or an heir."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.store import Store, open_store
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.courier import Courier
from aemesh.master.keeper import KeeperPlace
from aemesh.master.master import Master
from aemesh.model.address import Address
from aemesh.model.group import Demand, Haste, MemberState
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.model.trust import Mode, Role
from aemesh.net.link import Link
from aemesh.net.shake import shakers
from aemesh.policy.discovery import New
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.hello import Ourselves
from aemesh.protocol.keeperword import statement
from aemesh.worker.held import _HANDLERS, Held
from aemesh.worker.notebook import Notebook
from tests.roles.mesh import PORT, Machine, Mesh, announcement, wall

KEPT_AFTER = 60.0
HEIR_IP = "10.0.0.200"


@dataclass
class News:
    """A finder whose news a test gives."""

    send: trio.MemorySendChannel = field(init=False)
    receive: trio.MemoryReceiveChannel = field(init=False)

    def __post_init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel(100)

    async def news(self):
        async for one in self.receive:
            yield one


class Office(Mesh):
    """A mesh whose masters are killed, and come back."""

    def __init__(self, nursery: trio.Nursery, store: Store) -> None:
        super().__init__(nursery)
        self.store = store
        self.keeper: Machine
        self.notes = Notebook()
        self.heir_id = Identity.ephemeral("desk")
        self.scope = trio.CancelScope()
        self.heir_scope = trio.CancelScope()

    def place(self, identity: Identity, ip: str) -> KeeperPlace:
        """The keeper as this master reaches it."""
        ours = Ourselves(
            role=Role.MASTER,
            name=identity.name,
            key_id=identity.key_id,
            mode=Mode.LEAP,
            run=self.new_run(),
        )
        keeper = self.keeper.identity.key_id
        policy = TrustPolicy(role=Role.MASTER, trusted_keys=frozenset({keeper}))
        return KeeperPlace(
            network=self.segment.host(ip),
            address=Address(self.keeper.ip, PORT),
            key_id=keeper,
            shaker=shakers(ours, identity),
            desk=TrustDesk(policy, folder=None, wall=wall),
        )

    def word(self, at: Address, key_id: KeyId) -> wire.Keeper:
        """The master's signed word of its keeper."""
        address = Address(self.keeper.ip, at.port)
        return wire.Keeper(
            address=str(address),
            key=str(key_id),
            master=self.master_id.public.raw,
            sig=self.master_id.sign(statement(address, key_id)),
        )

    async def start_heir(self, store: Store, *, adopts: KeyId) -> Master:
        """Start another master, on a machine of its own, to take over."""
        news = News()
        for machine in self.machines.values():
            if machine is not self.keeper:
                news.send.send_nowait(New(announcement(machine)))
        heir = self.new_master(
            HEIR_IP,
            store,
            finder=news,
            identity=self.heir_id,
            adopts=adopts,
            inherit=lambda _address, _key: self.place(self.heir_id, HEIR_IP),
            kept_after=KEPT_AFTER,
        )
        self.heir_scope = trio.CancelScope()
        await self.nursery.start(run_within, heir, self.heir_scope)
        return heir

    def trusting(self) -> TrustPolicy:
        """Workers, and the keeper, trust both masters."""
        keys = {self.master_id.key_id, self.heir_id.key_id}
        return TrustPolicy(role=Role.WORKER, trusted_keys=frozenset(keys))

    async def start_master(self) -> Master:
        """Start a process of the master's key, which hears of all workers."""
        news = News()
        for machine in self.machines.values():
            if machine is not self.keeper:
                news.send.send_nowait(New(announcement(machine)))
        self.master = self.new_master(
            "10.0.0.1",
            self.store,
            finder=news,
            keeper=self.place(self.master_id, "10.0.0.1"),
            kept_after=KEPT_AFTER,
            heirs=(self.heir_id.key_id,),
            word=self.word,
        )
        self.scope = trio.CancelScope()
        await self.nursery.start(run_within, self.master, self.scope)
        return self.master

    async def kill_master(self) -> None:
        """End the master's process: nothing of its last words gets out."""
        await self.kill("10.0.0.1", self.scope)

    async def kill(self, ip: str, scope: trio.CancelScope) -> None:
        """End the process of a master at this address, without its last words."""
        self.segment.cut.add(ip)
        scope.cancel()
        await trio.sleep(limits.LOST_AFTER + 1)
        self.segment.cut.clear()

    def running(self, name: str) -> list:
        """The jobs that run on a machine."""
        return self.machines[name].jobs.running


async def run_within(master: Master, scope: trio.CancelScope, *, task_status) -> None:
    with scope:
        await master.run(task_status=task_status)


@asynccontextmanager
async def open_inherited(*names: str):
    """An office in which an heir has taken over from the master that is gone."""
    async with open_office(*names) as office:
        with open_store(None) as store:
            heir = await office.start_heir(store, adopts=office.master_id.key_id)
            await office.kill_master()
            office.master, office.store = heir, store
            for name in names:
                await office.wait_state(name, MemberState.LEASED)
            yield office
            office.nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_office(*names: str):
    """A master with a keeper and one group, served by these workers."""
    with open_store(None) as store:
        store.put_group(GroupName("A"), "memory")
        async with trio.open_nursery() as nursery:
            office = Office(nursery, store)
            trusting = office.trusting()
            office.keeper = await office.start_worker(
                "keeper", policy=trusting, announce=False, notebook=office.notes
            )
            for name in names:
                await office.start_worker(name, policy=trusting, announce=False)
            await office.start_master()
            for name in names:
                await office.wait_state(name, MemberState.LEASED)
            yield office
            nursery.cancel_scope.cancel()


async def test_a_master_that_was_killed_finds_its_engine_and_members_as_they_were(
    autojump_clock,
):
    """Shows: L5."""
    async with open_office("office-1", "office-2") as office:
        before = {name: office.running(name) for name in office.machines}
        assert all(before.values())
        await office.kill_master()
        assert {name: office.running(name) for name in office.machines} == before

        await office.start_master()

        for name in ("office-1", "office-2"):
            view = await office.wait_state(name, MemberState.LEASED)
            assert (view.group, view.generation) == ("A", 1)
        told = office.engine.told
        assert {name: office.running(name) for name in office.machines} == before
        assert told[-3] == "resume A"
        assert sorted(told[-2:]) == ["resume office-1.1", "resume office-2.1"]
        said = [one.text async for one in office.master.events(0, follow=False)]
        assert "group A goes on: 2 members are expected" in said
        (group,) = office.master.groups()
        assert group.members == ("office-1", "office-2")


async def test_a_link_that_another_replaces_at_once_costs_no_member(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
):
    """Both sides dial a master that is back; the first link told of the lease only."""
    async with open_office("office-1") as office:
        before = office.running("office-1")
        await office.kill_master()
        handle = Courier._handle
        first: list[Link] = []

        async def cut_off(courier: Courier, link: Link, body: wire.Body):
            if isinstance(body, wire.Orphaned) and not first:
                first.append(link)
                await handle(courier, link, body)
                link.abandon("the worker has another one")
            elif link not in first:
                return await handle(courier, link, body)
            return None

        monkeypatch.setattr(Courier, "_handle", cut_off)
        await office.start_master()
        view = await office.wait_state("office-1", MemberState.LEASED)

        assert first
        assert (view.group, view.generation) == ("A", 1)
        assert office.running("office-1") == before
        said = [one.kind async for one in office.master.events(0, follow=False)]
        assert "worker.missed" not in said


async def test_what_an_adopted_job_says_is_heard_and_what_it_is_told_arrives(
    autojump_clock,
):
    async with open_office("office-1") as office:
        await office.kill_master()
        (job,) = office.running("office-1")
        job.say(b"said while nobody listened\n")
        await trio.sleep(1)

        await office.start_master()
        await office.wait_state("office-1", MemberState.LEASED)

        running = office.engine.running[GroupName("A")]
        node = running.nodes["office-1.1"]
        await node.send(b"said to it\n")
        heard = b""
        async with aclosing(node.output()) as output:
            async for chunk in output:
                heard += chunk.data
                if heard.endswith(b"said to it\n"):
                    break
        assert heard == b"said while nobody listened\nsaid to it\n"


async def test_if_no_master_comes_all_free_themselves_when_the_time_is_over(
    autojump_clock,
):
    async with open_office("office-1") as office:
        await office.kill_master()
        await trio.sleep(KEPT_AFTER - 2 * limits.LOST_AFTER)
        assert office.running("office-1")
        assert office.running("keeper")

        await trio.sleep(2 * limits.LOST_AFTER + limits.TERM_AFTER + 1)

        assert office.running("office-1") == []
        assert office.running("keeper") == []
        worker = office.machines["office-1"].worker
        assert worker is not None
        assert worker.held.tenancy.lease is None


async def test_a_worker_that_does_not_come_back_is_missed_and_the_engine_told(
    autojump_clock,
):
    async with open_office("office-1", "office-2") as office:
        await office.kill_master()
        office.segment.cut.add(office.machines["office-2"].ip)

        await office.start_master()
        await office.wait_state("office-1", MemberState.LEASED)
        await office.wait_event("worker.missed")

        assert office.engine.told[-1] == "lost office-2.1"
        office.segment.cut.clear()
        view = await office.wait_state("office-2", MemberState.LEASED)
        assert view.generation == 2  # what ran there is of no use any more


async def test_a_member_that_does_not_let_itself_be_adopted_is_told_lost_at_once(
    autojump_clock,
):
    """Shows: L5; its tasks run elsewhere, and it joins anew."""
    async with open_office("office-1", "office-2") as office:
        await office.kill_master()
        worker = office.machines["office-2"].worker
        assert worker is not None
        worker.held._key = None  # it refuses

        await office.start_master()
        view = await office.wait_worker(
            "office-2", lambda one: (one.state, one.generation) == ("leased", 2)
        )

        assert view.group == "A"
        told = office.engine.told
        assert told.index("lost office-2.1") < told.index("add office-2.2")
        assert "resume office-2.1" not in told
        await trio.sleep(2 * limits.ADOPT_AFTER)
        assert told.count("lost office-2.1") == 1
        key_id = office.machines["office-2"].identity.key_id
        kept = {entry.key: entry.data for entry in office.notes.page("").entries}
        assert "office-2.2" in kept[f"A/{key_id}"]


async def test_a_member_whose_worker_began_anew_is_told_lost_before_it_joins(
    autojump_clock,
):
    async with open_office("office-1", "office-2") as office:
        await office.kill_master()
        office.machines["office-2"].scope.cancel()
        await trio.sleep(1)
        await office.start_worker("office-2", policy=office.trusting(), announce=False)

        await office.start_master()
        view = await office.wait_state("office-2", MemberState.LEASED)

        assert (view.group, view.generation) == ("A", 2)
        told = office.engine.told
        assert told.index("lost office-2.1") < told.index("add office-2.2")


async def test_a_member_that_goes_while_it_is_adopted_is_told_lost(
    autojump_clock, monkeypatch
):
    async with open_office("office-1", "office-2") as office:
        await office.kill_master()
        asked = trio.Event()
        adopt = Held.adopt

        async def slow(held: Held, master: KeyId, body: wire.Adopt) -> wire.Body:
            if held is office.machines["office-2"].worker.held:
                asked.set()
                await trio.sleep_forever()
            return await adopt(held, master, body)

        monkeypatch.setitem(_HANDLERS, wire.Adopt, slow)
        await office.start_master()
        await asked.wait()

        office.machines["office-2"].scope.cancel()
        await office.wait_event("worker.missed")
        await trio.testing.wait_all_tasks_blocked()

        assert "lost office-2.1" in office.engine.told


async def test_a_master_whose_keeper_is_not_reached_says_what_that_means(
    autojump_clock, caplog
):
    async with open_office() as office:
        await office.kill_master()
        office.segment.closed.add(office.keeper.ip)

        await office.start_master()

        assert "the keeper of this master is not reached" in caplog.text
        assert "A master that crashes now takes its engines' heads" in caplog.text


async def test_a_master_that_says_good_bye_leaves_nothing(autojump_clock):
    async with open_office("office-1") as office:
        office.master.stop()
        await trio.sleep(limits.RETIRE_AFTER + limits.TERM_AFTER)

        assert office.running("office-1") == []
        assert office.running("keeper") == []


async def test_without_its_keeper_a_group_starts_anew_and_its_workers_with_it(
    autojump_clock,
):
    async with open_office("office-1") as office:
        office.segment.cut.add(office.keeper.ip)
        office.keeper.scope.cancel()
        await trio.sleep(limits.LOST_AFTER + limits.TERM_AFTER)

        view = await office.wait_worker("office-1", lambda one: one.generation > 1)

        assert view.group == "A"
        assert len(office.running("office-1")) == 1


async def test_an_heir_takes_over_when_the_master_is_gone_and_not_before(
    autojump_clock,
):
    """Shows: L5; a second, authorised master on another host."""
    async with open_office("office-1", "office-2") as office:
        before = {name: office.running(name) for name in office.machines}
        with open_store(None) as store:
            heir = await office.start_heir(store, adopts=office.master_id.key_id)
            await trio.sleep(10 * limits.LOST_AFTER)
            assert heir.groups() == []  # the master is there

            await office.kill_master()
            office.master = heir
            for name in ("office-1", "office-2"):
                view = await office.wait_state(name, MemberState.LEASED)
                assert (view.group, view.generation) == ("A", 1)

            assert {name: office.running(name) for name in office.machines} == before
            (group,) = heir.groups()
            assert group.members == ("office-1", "office-2")
            tenancy = office.machines["office-1"].worker.held.tenancy
            assert tenancy.lease.master == office.heir_id.key_id
            office.nursery.cancel_scope.cancel()


async def test_a_master_that_was_not_asked_to_takes_nothing_over(autojump_clock):
    async with open_office("office-1") as office:
        with open_store(None) as store:
            other = KeyId(bytes(32))
            heir = await office.start_heir(store, adopts=other)
            await office.kill_master()
            await trio.sleep(2 * limits.LOST_AFTER)

            assert heir.groups() == []
            assert office.running("office-1")
            office.nursery.cancel_scope.cancel()


async def test_an_heir_that_could_not_take_over_at_once_tries_again(autojump_clock):
    async with open_office("office-1") as office:
        with open_store(None) as store:
            heir = await office.start_heir(store, adopts=office.master_id.key_id)
            office.segment.cut.add("10.0.0.1")
            office.scope.cancel()
            await trio.sleep(limits.LOST_AFTER - 1)
            office.segment.closed.add(office.keeper.ip)
            await trio.sleep(limits.LOST_AFTER)
            assert heir.groups() == []

            office.segment.closed.clear()
            office.master = heir
            view = await office.wait_state("office-1", MemberState.LEASED)
            assert (view.group, view.generation) == ("A", 1)
            office.nursery.cancel_scope.cancel()


async def test_what_nobody_goes_on_with_is_ended(autojump_clock):
    async with open_office("office-1") as office:
        await office.kill_master()
        office.store.put_group(GroupName("A"), "command")

        await office.start_master()
        await office.wait_worker("office-1", lambda one: one.generation > 1)

        assert office.running("keeper") == []
        assert office.notes.page("").entries == ()


async def test_a_group_that_was_closed_leaves_no_word_of_its_members(autojump_clock):
    async with open_office("office-1") as office:
        await office.master.close_group(GroupName("A"))

        assert office.notes.page("").entries == ()


async def test_a_worker_whose_jobs_ended_meanwhile_is_held_no_longer(autojump_clock):
    async with open_office("office-1") as office:
        await office.kill_master()
        for job in list(office.running("office-1")):
            await job.end(term_after=0.0)

        await trio.sleep(2 * limits.ORPHANED_JOB_AFTER)

        assert office.machines["office-1"].worker.held.tenancy.lease is None
        assert office.running("keeper")


async def test_a_place_is_kept_for_a_member_that_is_to_come_back(autojump_clock):
    async with open_office("office-1") as office:
        office.store.put_demand(GroupName("A"), Demand(max=1))
        await office.kill_master()
        office.segment.cut.add(office.machines["office-1"].ip)
        await office.start_worker("office-2", policy=office.trusting(), announce=False)
        await office.start_master()
        await office.wait_state("office-2", MemberState.TRUSTED)
        await trio.sleep(limits.ADOPT_AFTER / 2)
        office.segment.cut.clear()

        view = await office.wait_state("office-1", MemberState.LEASED)

        assert view.generation == 1
        (group,) = office.master.groups()
        assert group.members == ("office-1",)


async def test_a_drain_is_remembered_by_the_next_master(autojump_clock):
    async with open_office("office-1", "office-2") as office:
        await office.master.drain(("office-1",), by_after=1.0, haste=Haste.SOON)
        await office.kill_master()

        await office.start_master()
        await office.wait_state("office-2", MemberState.LEASED)
        await trio.sleep(2 * limits.ADOPT_AFTER)

        view = await office.wait_worker("office-1", lambda one: one.note != "")
        assert (view.group, "drained" in view.note) == (None, True)
        await office.master.undrain("office-1")
        assert (await office.wait_state("office-1", MemberState.LEASED)).group == "A"


async def test_who_is_set_aside_is_so_for_the_next_master_until_it_is_taken_back(
    autojump_clock,
):
    async with open_office("office-1", "office-2") as office:
        record = office.master.roster.find("office-2")
        for _ in range(limits.FAILURES_ENOUGH):
            record.standing.failed(
                "it burns", now=trio.current_time(), took=0.0, others_well=True
            )
        office.master.sharing.set_aside(record)
        await office.wait_worker("office-2", lambda one: one.group is None)
        await office.kill_master()

        await office.start_master()
        await office.wait_state("office-1", MemberState.LEASED)
        view = await office.wait_worker("office-2", lambda one: one.state == "trusted")
        await trio.sleep(2)

        assert "set aside for" in view.note
        assert "it burns" in view.note
        (group,) = office.master.groups()
        assert group.members == ("office-1",)
        office.master.readmit("office-2")
        assert (await office.wait_state("office-2", MemberState.LEASED)).group == "A"
        key_id = office.machines["office-2"].identity.key_id
        assert office.store.aside(key_id) == (0.0, "", 0)


async def test_a_drain_that_a_master_died_over_goes_on(autojump_clock):
    async with open_office("office-1", "office-2") as office:
        key_id = office.machines["office-1"].identity.key_id
        office.store.put_drained(key_id, drained=True)
        await office.kill_master()

        await office.start_master()

        await office.wait_event("worker.retired")
        view = await office.wait_worker("office-1", lambda one: "drained" in one.note)
        assert view.group is None
        assert office.running("office-1") == []


async def test_nobody_waits_for_a_member_that_was_gone_before_the_master(
    autojump_clock,
):
    async with open_office("office-1", "office-2") as office:
        office.segment.cut.add(office.machines["office-2"].ip)
        await office.wait_state("office-2", MemberState.LOST)
        office.segment.cut.clear()
        office.machines["office-2"].scope.cancel()
        await office.kill_master()

        await office.start_master()
        await office.wait_state("office-1", MemberState.LEASED)
        await trio.sleep(2 * limits.ADOPT_AFTER)

        assert "worker.missed" not in await office.events()


async def test_a_lease_that_is_just_beginning_is_not_adopted(autojump_clock):
    async with open_office("office-1") as office:
        worker = office.machines["office-1"].worker
        assert worker is not None
        worker.held._key = None  # as while the jobs of the one before are ending
        adopt = wire.Adopt(group="A", generation=1)

        with pytest.raises(RefusedError):
            await worker.held.adopt(office.master_id.key_id, adopt)


async def test_a_group_that_an_heir_has_already_is_ended_when_its_time_is_over(
    autojump_clock,
):
    async with open_office("office-1") as office:
        with open_store(None) as store:
            store.put_group(GroupName("A"), "memory")
            heir = await office.start_heir(store, adopts=office.master_id.key_id)
            await office.kill_master()
            office.master = heir
            await office.wait_event("master.takeover")
            await trio.sleep(KEPT_AFTER / 2)
            assert office.running("keeper")

            await trio.sleep(KEPT_AFTER)

            assert office.running("keeper") == []
            office.nursery.cancel_scope.cancel()
