"""Somebody who stands between a worker and a master, with keys of its own.

    python -m tests.lab.rogue_relay WORKER MASTER ADDRESS [late]

It announces itself in the worker's name, waits for the master, and dials the real
worker (at ADDRESS) in the master's name.  Whatever one side says it hands to the
other, as long as both let it.  A code of a meeting it cannot hand on, for there are
other keys on either side of it: it has to make one with each, and `pair` is how it
tries to make them equal.  With ``late`` it does not keep to what it committed to.

It says what it does, a line each.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError
from aemesh.host.keys.keystore import Identity
from aemesh.model.address import Address
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net import prove
from aemesh.net.discovery import open_discovery
from aemesh.net.presence import Presence
from aemesh.net.shake import Channel, Shaker, shakers
from aemesh.net.tcp import DEFAULT_PORT, TcpNetwork
from aemesh.net.wallclock import new_run
from aemesh.protocol import wire
from aemesh.protocol.hello import Ourselves, Purpose, nonce_untrusted
from aemesh.protocol.pairing import code, commitment
from aemesh.testing.nodes import FixedDoorman, FixedProofs

if TYPE_CHECKING:
    from aemesh.net.talk import Talk
    from aemesh.net.transport import Connection

# So many nonces it tries for one that makes the words equal: a second of work, where
# 2**40 would be needed.
TRIES = 1 << 16


@dataclass
class Meeting:
    """What the two sides of one meeting tell each other, behind the others' backs."""

    late: bool
    codes: dict[Role, str] = field(default_factory=dict)  # by whom we talk to
    known: dict[Role, trio.Event] = field(
        default_factory=lambda: {role: trio.Event() for role in Role}
    )

    def learn(self, side: Role, words: str) -> None:
        """Note the code that the real `side` shows."""
        self.codes[side] = words
        self.known[side].set()
        say(f'{side.value} sees "{words}"')


@dataclass(slots=True)
class Between(FixedProofs):
    """What our side of a handshake knows for its proofs: the meeting that it is in."""

    meeting: Meeting | None = None


def say(text: str) -> None:
    """Tell whoever runs us."""
    print(text, flush=True)


# --- the code ---------------------------------------------------------------


async def pair(talk: Talk, proofs: Between, nonce: bytes) -> None:
    """Make a code with one of the two, as near to the other one's as can be.

    The order is the best there is.  The worker's code comes first: towards it we are
    the master, who commits before the worker's nonce is known.  Then the master's:
    towards it we are the worker, and choose ours when the master has committed, but
    before it reveals.  So at neither end do we see what we would have to fit.
    """
    assert proofs.meeting is not None
    if talk.machine.ours.role is Role.MASTER:
        await _pair_with_worker(talk, proofs.meeting, nonce)
    else:
        await _pair_with_master(talk, proofs.meeting, nonce)


async def _pair_with_worker(talk: Talk, meeting: Meeting, nonce: bytes) -> None:
    await talk.prove(wire.Pair(commit=commitment(nonce).hex()))
    theirs = await _hear_nonce(talk)
    if meeting.late:
        await meeting.known[Role.MASTER].wait()
        nonce = _fitting(talk, theirs, meeting.codes[Role.MASTER])
    await talk.prove(wire.Pair(nonce=nonce.hex()))
    meeting.learn(Role.WORKER, _code_with_worker(talk, nonce, theirs))


async def _pair_with_master(talk: Talk, meeting: Meeting, nonce: bytes) -> None:
    await talk.hear_proof(wire.Pair)
    if not meeting.late:
        await meeting.known[Role.WORKER].wait()
    await talk.prove(wire.Pair(nonce=nonce.hex()))
    theirs = await _hear_nonce(talk)
    words = code(
        fp_master=talk.machine.meeting.leaf.key_id,
        fp_worker=talk.machine.ours.tls_key_id,
        nonce_master=theirs,
        nonce_worker=nonce,
    )
    meeting.learn(Role.MASTER, words)


def _fitting(talk: Talk, theirs: bytes, wanted: str) -> bytes:
    """Return a nonce by which the worker would see these words, as far as may be."""
    nonces = (
        hashlib.sha256(number.to_bytes(8, "big")).digest()[:16]
        for number in range(TRIES)
    )

    def alike(nonce: bytes) -> int:
        words = _code_with_worker(talk, nonce, theirs).split("-")
        return sum(a == b for a, b in zip(words, wanted.split("-"), strict=True))

    return max(nonces, key=alike)


def _code_with_worker(talk: Talk, nonce: bytes, theirs: bytes) -> str:
    return code(
        fp_master=talk.machine.ours.tls_key_id,
        fp_worker=talk.machine.meeting.leaf.key_id,
        nonce_master=nonce,
        nonce_worker=theirs,
    )


async def _hear_nonce(talk: Talk) -> bytes:
    body = await talk.hear_proof(wire.Pair)
    assert body.nonce is not None
    return nonce_untrusted(body.nonce)


# --- all else ---------------------------------------------------------------


class Relay:
    """Both faces, and what goes on between them."""

    def __init__(self, worker: str, master: str, host: str, *, late: bool) -> None:
        self.worker = Identity.ephemeral(worker)  # the face that the master sees
        self.master = Identity.ephemeral(master)
        self._late = late
        self._place = Address(host, DEFAULT_PORT)
        self._network = TcpNetwork()
        self._is_linked = False
        self._run = new_run()
        self._shakers = {
            role: shakers(
                Ourselves(
                    role=role,
                    name=NodeName(identity.name),
                    key_id=identity.key_id,
                    mode=Mode.LEAP,
                    run=self._run,
                ),
                identity,
            )
            for role, identity in (
                (Role.WORKER, self.worker),
                (Role.MASTER, self.master),
            )
        }

    async def run(self) -> None:
        """Stand between for good."""
        async with open_discovery() as discovery, trio.open_nursery() as crew:
            serve = partial(self._network.serve, port=DEFAULT_PORT)
            port = await crew.start(serve, self._meet)
            presence = Presence(
                role=Role.WORKER,
                name=NodeName(self.worker.name),
                key=self.worker.public,
                mode=Mode.LEAP,
                cores=1,
                memory=1 << 30,
                port=port,
                run=self._run,
            )
            await discovery.announce(presence, sign=self.worker.sign)
            say(f"as worker {self.worker.key_id}")
            say(f"as master {self.master.key_id}")
            await trio.sleep_forever()

    async def _meet(self, connection: Connection) -> None:
        try:
            if self._is_linked:  # a job's stream, most likely
                near = await self._shaker(Role.WORKER).accept(connection)
                far = await self._dial(self._shaker(Role.MASTER), near.purpose)
            else:
                near, far = await self._link(connection)
            await self._pass_on(near, far)
        except* (AemeshError, trio.BrokenResourceError, trio.ClosedResourceError) as no:
            for told in no.exceptions:
                say(f"came to nothing: {told}")
        finally:
            await trio.aclose_forcefully(connection.stream)

    def _shaker(self, role: Role, meeting: Meeting | None = None) -> Shaker:
        """Return what shakes hands with one face, and says yes to everybody."""
        return self._shakers[role](FixedDoorman(proofs=Between(meeting=meeting)))

    async def _dial(self, shaker: Shaker, purpose: Purpose) -> Channel:
        connection = await self._network.dial(self._place)
        return await shaker.connect(connection, expected=None, purpose=purpose)

    async def _link(self, connection: Connection) -> tuple[Channel, Channel]:
        """Shake hands with both at the same time: one's words wait for the other's."""
        meeting = Meeting(self._late)
        channels: dict[Role, Channel] = {}

        async def meet_worker() -> None:
            shaker = self._shaker(Role.MASTER, meeting)
            channels[Role.WORKER] = await self._dial(shaker, Purpose.CONTROL)

        async with trio.open_nursery() as crew:
            crew.start_soon(meet_worker)
            shaker = self._shaker(Role.WORKER, meeting)
            channels[Role.MASTER] = await shaker.accept(connection)
        self._is_linked = True
        return channels[Role.MASTER], channels[Role.WORKER]

    async def _pass_on(self, near: Channel, far: Channel) -> None:
        """Hand each side what the other says, word for word."""
        say(f"between, for {near.purpose.value}")
        async with trio.open_nursery() as crew:
            crew.start_soon(_pump, near, far, crew.cancel_scope)
            crew.start_soon(_pump, far, near, crew.cancel_scope)


async def _pump(source: Channel, sink: Channel, scope: trio.CancelScope) -> None:
    data = source.leftover
    while data or (data := bytes(await source.stream.receive_some(1 << 16))):
        await sink.stream.send_all(data)
        data = b""
    scope.cancel()


def main(worker: str, master: str, host: str, *how: str) -> None:
    """Stand between; the code is the one thing that we do in another way."""
    prove._pair = pair
    trio.run(Relay(worker, master, host, late="late" in how).run)


if __name__ == "__main__":
    main(*sys.argv[1:])
