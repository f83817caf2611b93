"""A worker's key is changed while it serves: no approval, no second machine."""

from __future__ import annotations

from dataclasses import replace

import trio

from aemesh.errors import KeyFileError
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.host.keys.nextkey import make_next, put_in_place, read_next
from aemesh.model.group import MemberState
from aemesh.model.trust import TrustBook
from tests.roles.mesh import open_mesh


class MemoryNextKey:
    """A next key and who has taken it, in memory."""

    def __init__(self, identity: Identity) -> None:
        self.public = identity.public
        self.sign = identity.sign
        self.taken: set[object] = set()

    def is_taken_by(self, peer):
        return peer in self.taken

    def taken_by(self, peer):
        self.taken.add(peer)


async def test_a_next_key_is_offered_and_the_one_before_is_forgotten(autojump_clock):
    """Shows: T1, T4."""
    following = Identity.ephemeral("lab-1")
    offer = MemoryNextKey(following)
    async with open_mesh("A") as mesh:
        await mesh.start_worker("lab-1", next_key=lambda: offer)
        await mesh.wait_state("lab-1", MemberState.LEASED)
        with trio.fail_after(10):
            while not offer.taken:
                await trio.sleep(0.1)
        both = [line.key for line in mesh.desk.book.known]
        before = mesh.machines["lab-1"].identity.public

        mesh.machines["lab-1"].scope.cancel()
        await mesh.wait_state("lab-1", MemberState.LOST)
        mesh.machines["lab-1"].identity = following
        await mesh.start_worker("lab-1")
        await mesh.wait_worker(
            "lab-1",
            lambda w: w.key == str(following.key_id) and w.state == "leased",
        )
        after = [line.key for line in mesh.desk.book.known]

    assert both == [before, following.public]
    assert after == [following.public]


async def test_a_line_that_somebody_wrote_is_not_changed_by_the_peer(autojump_clock):
    """Threat: 30."""
    offers: list[MemoryNextKey] = []
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker(
            "lab-1", next_key=lambda: offers[0] if offers else None
        )
        await mesh.wait_state("lab-1", MemberState.LEASED)
        (line,) = mesh.desk.book.known
        mesh.desk.memory.put(TrustBook(known=(replace(line, via="hand"),)))
        offers.append(MemoryNextKey(Identity.ephemeral("lab-1")))
        machine.desk.memory.tell_changed()
        await trio.sleep(30)

        assert offers[0].taken == set()
        assert [one.via for one in mesh.desk.book.known] == ["hand"]
        assert mesh.master.roster.find("lab-1").link is not None, "the link goes on"


async def test_a_next_key_that_cannot_be_read_ends_no_link(autojump_clock, caplog):
    """Its error went up to whoever runs all links."""

    def find() -> None:
        what = "id_ed25519.next is open to others"
        raise KeyFileError(what)

    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("lab-1", next_key=find)
        await mesh.wait_state("lab-1", MemberState.LEASED)
        machine.desk.memory.tell_changed()
        await trio.sleep(10)

        assert "worker.unlinked" not in await mesh.events()
        assert mesh.master.roster.find("lab-1").link is not None
    assert "open to others" in caplog.text


def test_the_next_key_is_kept_beside_the_present_one(tmp_path):
    folder = tmp_path / "worker"
    present = load_or_make(folder, "lab-1")
    assert read_next(folder, "lab-1") is None

    following = make_next(folder, "lab-1")
    following.taken_by(present.key_id)

    again = make_next(folder, "lab-1")
    assert again.public == following.public
    assert again.is_taken_by(present.key_id)
    assert (folder / "id_ed25519.next").stat().st_mode & 0o777 == 0o600

    put_in_place(folder)

    assert load_or_make(folder, "lab-1").public == following.public
    assert read_next(folder, "lab-1") is None
    assert (folder / "id_ed25519.pub").read_text().split()[1] == (
        following.public.openssh.split()[1]
    )
