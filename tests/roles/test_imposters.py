"""Imposters of a mesh are in the master's status: who, where to, why, when."""

from __future__ import annotations

from dataclasses import replace

import trio

from aemesh.host.keys.keystore import Identity
from aemesh.master.imposters import Lie
from aemesh.model.address import Address
from aemesh.model.group import MemberState
from aemesh.model.machine import Claims
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode
from aemesh.model.view import ImposterView
from aemesh.policy.discovery import Expired, Imposter, Replayed, Updated
from aemesh.protocol.announcement import instance_name
from tests.roles.mesh import PORT, Machine, Mesh, announcement, open_mesh, wall

LIAR = "10.0.0.66:7472"


async def imposters(mesh: Mesh) -> list[ImposterView]:
    await trio.sleep(1)
    return list(mesh.master.status().imposters)


async def test_a_forged_announcement_is_shown_with_what_it_claims(
    autojump_clock,
) -> None:
    """Shows: D8; Threat: 59."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        key_id = machine.identity.key_id
        claims = Claims("office-1", key_id, (LIAR,))
        began = wall()
        for times in (1, 2):
            news = Imposter(instance_name(key_id), "a lie", key_id, times, claims)
            mesh.tell(news)
            (one,) = await imposters(mesh)

        assert (one.name, one.key) == ("office-1", str(key_id))
        assert one.addresses == (LIAR,)
        assert (one.reason, one.times) == ("a lie", 2)
        assert began <= one.first_at < one.last_at <= wall()
        text = await mesh.wait_event("discovery.imposter")
        assert LIAR in text
        assert (await mesh.events()).count("discovery.imposter") == 1
        view = await mesh.wait_state("office-1", MemberState.LEASED)
        assert "imposter: 2" in view.note


async def test_replayed_and_expired_announcements_are_shown(autojump_clock) -> None:
    """Shows: D8; Threat: 59."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        old = replace(announcement(machine, ip="10.0.0.66"), signed_at=1_600_000_000)
        mesh.tell(Replayed(old, announcement(machine).signed_at))
        mesh.tell(Expired(old, 1e6))
        found = await imposters(mesh)

        assert {one.reason for one in found} == {
            f"it is {lie.value}" for lie in (Lie.REPLAYED, Lie.EXPIRED)
        }
        assert {one.addresses for one in found} == {(LIAR,)}
        assert "worker.clone" not in await mesh.events()


async def test_what_nobody_can_have_signed_is_shown_escaped(autojump_clock) -> None:
    """Shows: D8; Threat: 64."""
    async with open_mesh("A") as mesh:
        mesh.tell(Imposter("aemesh-\x1b[2J", "junk", None, 1))
        (one,) = await imposters(mesh)

        assert one.name.isprintable()
        assert (one.key, one.addresses) == ("", ())


async def test_another_key_at_a_worker_s_address_is_shown(autojump_clock) -> None:
    """Shows: D8; Threat: 59."""
    async with open_mesh("A") as mesh:
        liar = await mesh.start_worker("liar", announce=False)
        meant = Machine(NodeName("office-1"), liar.ip, Identity.ephemeral("office-1"))
        mesh.announce(meant)
        await mesh.wait_event("worker.unlinked")
        (one,) = await imposters(mesh)

        assert one.name == "office-1"
        assert one.key == str(liar.identity.key_id)
        assert one.addresses == (f"{liar.ip}:{PORT}",)
        assert one.reason == "another key answers at its address"
        text = await mesh.wait_event("discovery.imposter")
        assert str(liar.identity.key_id) in text


async def test_another_key_where_a_worker_was_once_is_no_imposter(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        other = await mesh.start_worker("other", announce=False)
        gone = Machine(NodeName("office-1"), other.ip, Identity.ephemeral("office-1"))
        moved = replace(
            announcement(gone), addresses=(Address("10.0.0.9", PORT),), mode=Mode.LEAP
        )
        mesh.segment.cut.add(other.ip)
        mesh.announce(gone)
        await mesh.wait_event("worker.unlinked")
        mesh.tell(Updated(moved))
        await trio.sleep(1)
        mesh.segment.cut.clear()
        await trio.sleep(30)

        assert Address(other.ip, PORT) in mesh.segment.dialled[-2:]
        assert await imposters(mesh) == []


async def test_the_word_of_a_clone_that_lives_is_not_called_a_replay(
    autojump_clock,
) -> None:
    """Shows: D8."""
    async with open_mesh("A") as mesh:
        first = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        before = announcement(first)
        mesh.tell(Updated(before))
        copy = await mesh.start_copy("office-1")
        said = announcement(copy)
        mesh.tell(Updated(said))
        await mesh.wait_event("worker.clone")
        mesh.tell(Replayed(before, said.signed_at))
        mesh.tell(Replayed(said, said.signed_at + 1))

        assert await imposters(mesh) == []
