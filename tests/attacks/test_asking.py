"""Attacks on what a master tells from afar: who floods it, and who says nonsense."""

from __future__ import annotations

import pytest
import trio

from aemesh import limits
from aemesh.client.afar import _Asker
from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.host.keys.keystore import Identity
from aemesh.model.address import Address
from aemesh.model.view import StatusView
from aemesh.net.shake import Channel
from aemesh.protocol import wire
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.hello import Purpose
from aemesh.protocol.strictjson import decode_untrusted
from tests.roles.mesh import Mesh
from tests.roles.test_asking import MASTER, ask, far_of, let, open_asked


async def enter(mesh: Mesh, identity: Identity) -> Channel:
    """Return a channel on which a question is expected."""
    far = far_of(mesh, identity)
    connection = await far.network.dial(Address(MASTER.host, MASTER.port))
    shaker = far.shaker(_Asker(far.desk, far.waits))
    return await shaker.connect(connection, expected=None, purpose=Purpose.ASK)


async def answer(channel: Channel) -> wire.Envelope:
    """Return what is said on a channel next."""
    frames = FrameReader(limit=limits.FRAME_BYTES)
    frames.receive_untrusted(channel.leftover)
    while (frame := frames.next_untrusted()) is None:
        frames.receive_untrusted(bytes(await channel.stream.receive_some()))
    return decode_untrusted(frame, wire.Envelope)


async def test_who_enters_and_asks_nothing_holds_few_places_and_not_for_long(
    autojump_clock,
):
    """Threat: 87; one asker keeps no other out, nor itself for more than a while."""
    async with open_asked("A", workers={}) as mesh:
        greedy, other = Identity.ephemeral("greedy"), Identity.ephemeral("desk")
        for identity in (greedy, other):
            let(mesh, identity, observe=True)
        idle = [await enter(mesh, greedy) for _ in range(limits.ASKS_OF_ONE)]

        with pytest.raises(RefusedError, match="too many ask"):
            await ask(far_of(mesh, greedy), "status", StatusView)
        assert await ask(far_of(mesh, other), "status", StatusView)
        await trio.sleep(limits.ASK_AFTER + 1)
        assert await ask(far_of(mesh, greedy), "status", StatusView)
        del idle


async def test_many_askers_are_bounded_together(autojump_clock):
    """Threat: 87."""
    async with open_asked("A", workers={}) as mesh:
        idle = []
        for number in range(limits.ASKS_AT_ONCE):
            identity = Identity.ephemeral(f"desk-{number}")
            let(mesh, identity, observe=True)
            idle.append(await enter(mesh, identity))
        last = Identity.ephemeral("last")
        let(mesh, last, observe=True)

        with pytest.raises(RefusedError, match="too many ask"):
            await ask(far_of(mesh, last), "status", StatusView)
        del idle


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        encode_frame(b"{}", limit=100),
        encode_frame(b'{"t": "assign", "b": {}}', limit=100),
        encode_frame(b'{"t": "ask", "n": 1, "b": {"what": 7}}', limit=100),
        encode_frame(b'{"t": "ask", "b": {"what": "%s"}}' % (b"x" * 80), limit=200),
        encode_frame(b'{"t": "ask", "b": {"what": "events", "after": -1}}', limit=100),
    ],
)
async def test_nonsense_instead_of_a_question_gets_a_no(autojump_clock, said: bytes):
    """Threat: 87; and the master goes on."""
    async with open_asked("A", workers={}) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)
        channel = await enter(mesh, desk)

        await channel.stream.send_all(said)
        envelope = await answer(channel)

        assert envelope.t == "failed"
        assert await ask(far_of(mesh, desk), "status", StatusView)


async def test_a_channel_for_questions_takes_no_orders(autojump_clock):
    """Threat: 80; it is read-only: whoever is let in may not do more by it."""
    async with open_asked("A", workers={}) as mesh:
        desk = Identity.ephemeral("desk")
        let(mesh, desk, observe=True)
        for kind in (wire.Leave(reason="x", by_after=1.0), wire.Done()):
            channel = await enter(mesh, desk)
            data = encode_frame(wire.encode(kind, n=1), limit=limits.HELLO_BYTES)
            await channel.stream.send_all(data)

            assert (await answer(channel)).t == "failed"


async def test_a_stranger_that_nobody_accepts_hears_nothing(autojump_clock):
    """Promise 2: not even which groups there are."""
    async with open_asked("A", workers={"office-1": "A"}) as mesh:
        mesh.desk.policy = mesh.desk.proofs.policy = type(mesh.desk.policy)(
            role=mesh.desk.policy.role
        )
        stranger = Identity.ephemeral("stranger")

        with pytest.raises(AemeshError) as caught:
            await far_of(mesh, stranger).ask(wire.Ask(what="groups"))

        assert isinstance(caught.value, UnreachableError | RefusedError)
        assert "office-1" not in str(caught.value)
