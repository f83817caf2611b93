"""A master is asked from another machine: by members, and by whom it let observe."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
import trio

from aemesh import limits
from aemesh.client.afar import Far, view_untrusted
from aemesh.errors import AemeshError, BadMessage, RefusedError, RequestFailedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.address import Seed
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import KnownPeer, Mode, Role, Terms
from aemesh.model.view import EventView, GroupStatusView, StatusView, WorkerView
from aemesh.net.shake import shakers
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.hello import Ourselves
from tests.roles.mesh import PORT, Mesh, open_mesh, wall

MASTER = Seed("10.0.0.1", PORT)
DESK_IP = "10.0.0.99"


def far_of(mesh: Mesh, identity: Identity, *, knows: KeyId | None = None) -> Far:
    """The master as somebody with this key reaches it."""
    ours = Ourselves(
        role=Role.WORKER,
        name=NodeName(identity.name),
        key_id=identity.key_id,
        mode=Mode.LEAP,
        run=mesh.new_run(),
    )
    trusted = frozenset({knows or mesh.master_id.key_id})
    policy = TrustPolicy(role=Role.WORKER, trusted_keys=trusted)
    return Far(
        seed=MASTER,
        network=mesh.segment.host(DESK_IP),
        shaker=shakers(ours, identity),
        desk=TrustDesk(policy, folder=None, wall=wall),
    )


def let(mesh: Mesh, identity: Identity, *, observe: bool, **terms) -> None:
    """Write a line of trust at the master."""
    line = KnownPeer(
        name=NodeName(identity.name),
        key=identity.public,
        via="accept",
        added="20261126",
        terms=Terms(**terms),
        observe=observe,
    )
    mesh.desk.memory.keep(line)


@asynccontextmanager
async def open_asked(*groups: str, workers: dict[str, str]):
    """A master that listens, and workers of one group each."""
    policy = TrustPolicy(role=Role.MASTER, accept_new=True)
    async with open_mesh(*groups, policy=policy, port=PORT) as mesh:
        for name, group in workers.items():
            await mesh.start_worker(name, groups=frozenset({GroupName(group)}))
            await mesh.wait_worker(name, lambda v: v.state == "leased")
        yield mesh


async def ask(far: Far, what: str, kind, **fields):
    lines = await far.ask(wire.Ask(what=what, **fields))
    return [view_untrusted(line, kind) for line in lines]


WORKERS = {"office-1": "A", "office-2": "B"}


async def test_whom_a_person_let_observe_sees_what_the_master_sees(autojump_clock):
    """Shows: G6."""
    async with open_asked("A", "B", workers=WORKERS) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)
        far = far_of(mesh, desk)

        (status,) = await ask(far, "status", StatusView)
        workers = await ask(far, "workers", WorkerView)
        (shown,) = await ask(far, "group", GroupStatusView, group="A")
        history = await ask(far, "events", EventView)

        assert status.name == "laptop"
        assert workers == mesh.master.workers()
        assert shown == mesh.master.group_status(GroupName("A"))
        assert [one.kind for one in history] == await mesh.events()
        # Nothing of the master's machine, and no record of a worker of that name.
        assert (status.pid, status.state_dir) == (0, "")
        assert {one.name for one in mesh.master.workers()} == set(WORKERS)


async def test_a_member_asks_about_its_group_and_sees_no_other(autojump_clock):
    """Shows: G6."""
    async with open_asked("A", "B", workers=WORKERS) as mesh:
        far = far_of(mesh, mesh.machines["office-1"].identity)

        (status,) = await ask(far, "status", StatusView)
        (shown,) = await ask(far, "group", GroupStatusView, group="A")
        workers = await ask(far, "workers", WorkerView)
        history = await ask(far, "events", EventView)

        assert [one.name for one in status.groups] == ["A"]
        assert [one.name for one in workers] == ["office-1"]
        assert [one.worker for one in shown.members] == ["office-1"]
        assert shown.refused == ()
        assert {one.group for one in history} == {"A"}
        told = b"".join(await far.ask(wire.Ask(what="status")))
        assert b"office-2" not in told
        with pytest.raises(RequestFailedError, match="unknown group"):
            await far.ask(wire.Ask(what="group", group="B"))


async def test_an_observer_of_some_groups_sees_these(autojump_clock):
    async with open_asked("A", "B", workers=WORKERS) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True, groups=("B",))
        far = far_of(mesh, desk)

        workers = await ask(far, "workers", WorkerView)
        history = await ask(far, "events", EventView)

        assert [one.name for one in workers] == ["office-2"]
        assert {one.group for one in history} == {"B"}


async def test_whoever_may_not_ask_gets_a_no_with_words_and_nothing_else(
    autojump_clock,
):
    async with open_asked("A", workers={"office-1": "A"}) as mesh:
        known = Identity.ephemeral("desk")
        let(mesh, known, observe=False)
        await mesh.start_worker("office-2", groups=frozenset({GroupName("none")}))
        await mesh.wait_worker("office-2", lambda v: v.state == "trusted")

        for identity in (
            known,
            Identity.ephemeral("stranger"),  # taken at first use, as a worker
            mesh.machines["office-2"].identity,
        ):
            for what in ("status", "workers", "groups", "group", "events"):
                with pytest.raises(RefusedError, match="may not ask"):
                    await far_of(mesh, identity).ask(wire.Ask(what=what, group="A"))

        assert not any(one.name == "stranger" for one in mesh.desk.book.known)


async def test_a_stranger_waits_for_a_person_who_lets_it_observe(autojump_clock):
    async with open_asked("A", workers={}) as mesh:
        mesh.desk.policy = replace(mesh.desk.policy, accept_new=False)
        mesh.desk.proofs.policy = mesh.desk.policy
        stranger = Identity.ephemeral("desk")
        waits: list[str] = []
        far = replace(
            far_of(mesh, stranger), waits=lambda peer: waits.append(peer.code)
        )
        answers: list[list[StatusView]] = []

        async def wait() -> None:
            answers.append(await ask(far, "status", StatusView))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(5)
            (request,) = mesh.desk.waiting.values()
            assert request.code == waits[0]
            assert answers == []
            let(mesh, stranger, observe=True)

        assert answers[0][0].name == "laptop"
        assert mesh.master.workers() == []


async def test_a_master_that_is_not_known_is_not_asked(autojump_clock):
    async with open_asked("A", workers={}) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)

        with pytest.raises(RefusedError, match="do not know the master") as caught:
            await far_of(mesh, desk, knows=KeyId(bytes(32))).ask(
                wire.Ask(what="status")
            )

        assert f"--trust-master {mesh.master_id.key_id}" in (caught.value.hint or "")


async def test_a_long_history_comes_in_parts(autojump_clock):
    async with open_asked("A", workers={}) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)
        for number in range(limits.EVENTS_ANSWERED + 10):
            mesh.master.history.add("test.event", f"number {number} " + "x" * 200)
        far = far_of(mesh, desk)

        first = await ask(far, "events", EventView)
        rest = await ask(far, "events", EventView, after=first[-1].number)

        assert len(first) == limits.EVENTS_ANSWERED
        numbers = [one.number for one in (*first, *rest)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == len(await mesh.events())


async def test_what_is_nothing_to_ask_for_is_refused(autojump_clock):
    async with open_asked("A", workers={}) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)

        with pytest.raises(AemeshError, match="nothing to ask for"):
            await far_of(mesh, desk).ask(wire.Ask(what="secrets"))


async def test_a_worker_answers_no_questions(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        ours = Ourselves(
            role=Role.MASTER,
            name=NodeName("laptop"),
            key_id=mesh.master_id.key_id,
            mode=Mode.LEAP,
            run=mesh.new_run(),
        )
        trusted = frozenset({machine.identity.key_id})
        policy = TrustPolicy(role=Role.MASTER, trusted_keys=trusted)
        far = Far(
            seed=Seed(machine.ip, PORT),
            network=mesh.segment.host(DESK_IP),
            shaker=shakers(ours, mesh.master_id),
            desk=TrustDesk(policy, folder=None, wall=wall),
        )

        with pytest.raises(RefusedError, match="only a master answers"):
            await far.ask(wire.Ask(what="status"))


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{", b'{"number": "x"}', b"\xff", b"[" * 100_000]
)
def test_an_answer_that_is_no_view_is_told_so(line: bytes):
    with pytest.raises(BadMessage):
        view_untrusted(line, EventView)


def test_each_view_can_be_read_from_what_is_written():
    event = EventView(number=1, at=2.0, kind="k", text="t")

    assert view_untrusted(msgspec.json.encode(event), EventView) == event
