"""Workers that dial their masters: heard of, typed, refused, and in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from aemesh import limits
from aemesh.errors import NobodyFoundError
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.callbacks import Callbacks
from aemesh.model.address import Address, Seed
from aemesh.model.group import MemberState
from aemesh.model.key import KeyId
from aemesh.model.machine import Announcement
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.link import Link
from aemesh.policy.discovery import New, News, Updated
from aemesh.policy.outreach import seeks
from aemesh.policy.trust import TrustPolicy
from tests.roles.mesh import PORT, Machine, Mesh, open_mesh, wall

MASTER = Address("10.0.0.1", PORT)
SEED = Seed(MASTER.host, MASTER.port)


@dataclass
class Ear:
    """What a worker hears of masters; hand it in as `finder` and `seeks`."""

    desk: TrustDesk | None = None
    seen: list[KeyId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tell, self._heard = trio.open_memory_channel[News](10_000)

    async def news(self) -> AsyncIterator[News]:
        async for news in self._heard:
            yield news

    def seeks(self, key_id: KeyId) -> bool:
        assert self.desk is not None
        desk = self.desk
        return seeks(key_id, desk.book, desk.policy, now=wall())

    def hear(
        self, identity: Identity, address: Address = MASTER, *, again: bool = False
    ) -> None:
        now = int(wall())
        said = Announcement(
            role=Role.MASTER,
            name=NodeName(identity.name),
            key=identity.public,
            mode=Mode.LEAP,
            cores=0,
            memory=0,
            addresses=(address,),
            signed_at=now,
            expires_at=now + 3600,
        )
        self.tell.send_nowait((Updated if again else New)(said))


async def start(mesh: Mesh, name: str, ear: Ear, **options) -> Machine:
    """Start a worker that hears of masters."""
    machine = await mesh.start_worker(name, finder=ear, seeks=ear.seeks, **options)
    ear.desk = machine.desk
    return machine


def link_of(machine: Machine, mesh: Mesh) -> Link:
    assert machine.worker is not None
    return machine.worker.links[mesh.master_id.key_id]


async def serving(mesh: Mesh, name: str) -> None:
    await mesh.wait_worker(name, lambda v: v.state == "leased")
    with trio.fail_after(60):
        while name not in mesh.master.groups()[0].members:
            await trio.sleep(0.05)


async def test_a_worker_that_nobody_can_dial_dials_and_serves(autojump_clock) -> None:
    """Shows: D6; its job's stream goes the same way."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        mesh.segment.closed.add("10.0.0.2")
        machine = await start(mesh, "office-1", ear)
        await trio.sleep(10)
        assert link_is_missing(machine)
        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")

        link = link_of(machine, mesh)
        assert (link.dialled, link.connection.remote) == (True, MASTER)
        (job,) = machine.jobs.running
        assert set(job.tls) == {"ca.pem", "cert.pem", "key.pem"}
        output = [one async for one in mesh.master.exec("A", ("echo", "hello"), {})]
        assert [one.code for one in output] == [None, 0]


def link_is_missing(machine: Machine) -> bool:
    return machine.worker is not None and not machine.worker.links


async def test_the_master_has_a_head_start(autojump_clock) -> None:
    """Both could dial: the master does, as ever, and the worker need not."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        machine = await start(mesh, "office-1", ear)
        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")
        await trio.sleep(60)

        assert not link_of(machine, mesh).dialled
        assert MASTER not in mesh.segment.dialled


@pytest.mark.parametrize("again", range(4))
async def test_when_both_dial_at_once_one_link_is_left(
    autojump_clock, monkeypatch, again
) -> None:
    """Whichever fingerprint is the smaller: keys are new in each round."""
    del again
    monkeypatch.setattr(limits, "HEAD_START_AFTER", 0.0)
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        machine = await start(mesh, "office-1", ear, announce=False)
        mesh.announce(machine)
        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")
        await trio.sleep(30)

        view = await mesh.wait_state("office-1", MemberState.LEASED)
        assert view.held_by == "laptop"
        record = mesh.master.roster.find("office-1")
        assert record.link is not None
        assert record.link.dialled is not link_of(machine, mesh).dialled
        assert len(machine.jobs.running) == 1


async def test_a_master_that_waits_at_the_door_is_not_dialled_as_well(
    autojump_clock,
) -> None:
    """Its owner would be asked about the same worker a second time."""
    policy = TrustPolicy(role=Role.MASTER)
    async with open_mesh("A", port=PORT, policy=policy) as mesh:
        ear = Ear()
        machine = await start(mesh, "office-1", ear)
        ear.hear(mesh.master_id)
        with trio.fail_after(60):
            while not mesh.desk.waiting:
                await trio.sleep(0.1)
        await trio.sleep(120)
        (request,) = mesh.desk.waiting.values()
        assert MASTER not in mesh.segment.dialled
        assert request.tries == 1
        mesh.desk.accept(request, via="prompt")

        await serving(mesh, "office-1")
        assert not link_of(machine, mesh).dialled


async def test_a_link_that_broke_is_dialled_again_by_the_worker(autojump_clock) -> None:
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        mesh.segment.closed.add("10.0.0.2")
        machine = await start(mesh, "office-1", ear)
        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")
        first = link_of(machine, mesh)

        mesh.segment.cut.add("10.0.0.2")
        await mesh.wait_state("office-1", MemberState.LOST)
        mesh.segment.cut.clear()
        await serving(mesh, "office-1")

        assert link_of(machine, mesh) is not first


async def test_a_stranger_that_announces_itself_is_not_dialled_and_nobody_is_asked(
    autojump_clock,
) -> None:
    """Threat: 61: a thousand masters, and the owner is not asked once."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        machine = await start(mesh, "office-1", ear, announce=False)
        stranger = Identity.ephemeral("evil")
        for number in range(1000):
            ear.hear(stranger, Address("10.0.0.66", 2000 + number), again=True)
        await trio.sleep(60)

        assert not mesh.segment.dialled
        assert machine.desk is not None
        assert not machine.desk.waiting


async def test_a_worker_for_the_first_that_comes_dials_few_and_asks_nobody(
    autojump_clock,
) -> None:
    """Threat: 34, 61: a flood of announcements does not become a flood of dials."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        policy = TrustPolicy(role=Role.WORKER, accept_first=True)
        machine = await start(mesh, "office-1", ear, announce=False, policy=policy)
        for number in range(200):
            for _ in range(5):
                name = f"evil-{number}"
                identity = identities.setdefault(name, Identity.ephemeral(name))
                ear.hear(identity, Address("10.0.0.66", 2000 + number), again=True)
        await trio.sleep(1)
        assert machine.worker is not None
        machine.worker._outreach.check()
        await trio.sleep(9)
        assert len(mesh.segment.dialled) <= 2 * limits.MASTERS_SOUGHT

        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")

        assert machine.desk is not None
        assert not machine.desk.waiting
        assert [line.name for line in machine.desk.book.known] == ["laptop"]


identities: dict[str, Identity] = {}


async def test_who_has_a_master_does_not_take_a_second_that_announces_itself(
    autojump_clock,
) -> None:
    """Threat: 22: it imprints once."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        policy = TrustPolicy(role=Role.WORKER, accept_first=True)
        machine = await start(mesh, "office-1", ear, announce=False, policy=policy)
        ear.hear(mesh.master_id)
        await serving(mesh, "office-1")
        before = list(mesh.segment.dialled)
        ear.hear(Identity.ephemeral("evil"), Address("10.0.0.66", PORT))
        await trio.sleep(30)

        assert mesh.segment.dialled == before
        assert machine.desk is not None
        assert not machine.desk.waiting


async def test_an_announcement_that_points_elsewhere_does_not_redirect_a_worker(
    autojump_clock,
) -> None:
    """Threat: 24, 59: another key answers there; the true place is tried too."""
    async with open_mesh("A", port=PORT) as mesh:
        ear = Ear()
        machine = await start(mesh, "office-1", ear, announce=False)
        liar = Identity.ephemeral("laptop")
        evil = mesh.new_master(
            "10.0.0.66", mesh.master._parts.store, finder=mesh, identity=liar, port=PORT
        )
        await mesh.nursery.start(evil.run)
        ear.hear(mesh.master_id)
        ear.hear(mesh.master_id, Address("10.0.0.66", PORT), again=True)
        await serving(mesh, "office-1")

        assert Address("10.0.0.66", PORT) in mesh.segment.dialled
        assert link_of(machine, mesh).peer.key_id == mesh.master_id.key_id
        assert list(machine.worker.links) == [mesh.master_id.key_id]


async def test_a_typed_master_is_dialled_and_nothing_listens(autojump_clock) -> None:
    """Shows: D4."""
    async with open_mesh("A", port=PORT) as mesh:
        machine = await mesh.start_worker("office-1", announce=False, seeds=(SEED,))
        await serving(mesh, "office-1")

        assert list(mesh.segment.listeners) == [MASTER]
        assert machine.worker is not None
        assert machine.worker.port == 0


async def test_the_owner_is_asked_about_a_master_that_was_typed(autojump_clock) -> None:
    """Shows: D4; it is dialled again when the owner has said yes."""
    async with open_mesh("A", port=PORT) as mesh:
        machine = await mesh.start_worker(
            "office-1",
            announce=False,
            seeds=(SEED,),
            policy=TrustPolicy(role=Role.WORKER),
        )
        desk = machine.desk
        assert desk is not None
        with trio.fail_after(60):
            while not desk.waiting:
                await trio.sleep(0.1)
        (request,) = desk.waiting.values()
        assert request.name == "laptop"
        desk.accept(request, via="prompt")

        await serving(mesh, "office-1")


async def test_two_addresses_of_one_master_are_one_link(autojump_clock) -> None:
    async with open_mesh("A", port=PORT) as mesh:
        machine = await mesh.start_worker(
            "office-1", announce=False, seeds=(SEED, SEED)
        )
        await serving(mesh, "office-1")
        link = link_of(machine, mesh)
        await trio.sleep(300)

        assert link_of(machine, mesh) is link


async def test_a_worker_without_a_master_gives_up(autojump_clock) -> None:
    """Shows: D10."""
    async with open_mesh("A") as mesh:
        began = trio.current_time()
        with pytest.raises(NobodyFoundError) as caught:
            await run_alone(mesh, give_up_after=600.0)

        assert 600 <= trio.current_time() - began < 601
        assert caught.value.exit_code == 5


async def run_alone(mesh: Mesh, **parts) -> None:
    """Run a worker that nobody hears of to its end."""
    machine = Machine(NodeName("alone"), "10.0.9.9", Identity.ephemeral("alone"))
    policy = TrustPolicy(role=Role.WORKER)
    desk = TrustDesk(policy, folder=None, wall=wall)
    machine.run = mesh.new_run()
    await mesh._worker(machine, desk, parts).run()


async def test_who_has_a_master_does_not_give_up_until_it_is_gone(
    autojump_clock,
) -> None:
    """Shows: D10; the time begins when the link has ended."""
    async with open_mesh("A", port=PORT) as mesh:
        ended: list[float] = []

        async def run() -> None:
            machine = Machine(NodeName("one"), "10.0.9.9", Identity.ephemeral("one"))
            policy = TrustPolicy(
                role=Role.WORKER, trusted_keys=frozenset({mesh.master_id.key_id})
            )
            machine.run = mesh.new_run()
            desk = TrustDesk(policy, folder=None, wall=wall)
            parts = {"seeds": (SEED,), "give_up_after": 60.0}
            with pytest.raises(NobodyFoundError):
                await mesh._worker(machine, desk, parts).run()
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await serving(mesh, "one")
            await trio.sleep(600)
            assert not ended
            cut_at = trio.current_time()
            mesh.segment.cut.add("10.0.9.9")

        assert 60 <= ended[0] - cut_at < 60 + 2 * limits.LOST_AFTER


async def test_a_stream_is_only_for_who_was_asked_and_once(autojump_clock) -> None:
    """Threat: 80: an id of another worker's, or one that was used, opens nothing."""
    async with open_mesh("A", port=PORT) as mesh:
        asked: list[str] = []
        callbacks = mesh.master._callbacks
        assert isinstance(callbacks, Callbacks)
        for name in ("office-1", "office-2"):
            await mesh.start_worker(name, announce=False, seeds=(SEED,))
            await serving(mesh, name)
        one, two = (mesh.machines[name].worker for name in ("office-1", "office-2"))
        assert one is not None
        assert two is not None
        link = link_of(mesh.machines["office-1"], mesh)
        at_master = mesh.master.roster.find("office-1").link
        assert at_master is not None

        async def thief(_link, body):
            asked.append(body.id)
            theirs = link_of(mesh.machines["office-2"], mesh)
            return await two._dial_stream(theirs, body)

        link._handle = thief
        with trio.fail_after(60), pytest.raises(Exception, match="dialled no stream"):
            await callbacks.call(at_master)

        assert len(asked[0]) == 32
        assert repr(callbacks) == "<Callbacks 0 waited for>"
        link._handle = partial(type(one)._handle, one)
        channel = await callbacks.call(at_master)
        await trio.aclose_forcefully(channel.connection.stream)
