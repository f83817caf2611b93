"""Two ends of a handshake: ``shake serve`` or ``shake dial HOST PORT COUNT``.

The dialling end prints the seconds of each `Shaker.connect` over a fresh connection,
in JSON.
"""

# It prints; the desk needs less than a doorman is told.
# ruff: noqa: T201, ARG002

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress

import trio

from aemesh.host.keys.keystore import Identity
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Peer, Role, Verdict
from aemesh.net.shake import Shaker, shakers
from aemesh.net.tcp import TcpNetwork
from aemesh.net.transport import Connection
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol.hello import Ourselves, Purpose


class DeskDoorman(TrustDesk):
    """The real desk as the doorman of a handshake; its book is in memory."""

    def judge(  # type: ignore[override]
        self,
        peer: Peer,
        *,
        purpose: Purpose = Purpose.CONTROL,
        skew: float = 0.0,
        expected: KeyId | None = None,
    ) -> Verdict:
        """Return the desk's verdict."""
        return super().judge(peer, expected=expected)


def shaker_of(role: Role) -> Shaker:
    """Return a node that trusts whom it meets first."""
    identity = Identity.ephemeral(role.value)
    policy = TrustPolicy(
        role=role,
        mode=Mode.LEAP,
        accept_new=role is Role.MASTER,
        accept_first=role is Role.WORKER,
    )
    ours = Ourselves(
        role=role, name=NodeName(role.value), key_id=identity.key_id, mode=Mode.LEAP
    )
    return shakers(ours, identity)(DeskDoorman(policy, folder=None, wall=time.time))


async def serve() -> None:
    """Accept handshakes until killed."""
    shaker = shaker_of(Role.WORKER)

    async def admit(connection: Connection) -> None:
        channel = await shaker.accept(connection)
        with suppress(trio.BrokenResourceError):
            await channel.stream.receive_some(1)
        await trio.aclose_forcefully(connection.stream)

    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[int]) -> None:
            await TcpNetwork().serve(admit, port=0, task_status=task_status)

        port = await nursery.start(run)
        print("port", port, flush=True)


async def dial(host: str, port: int, count: int) -> None:
    """Shake hands `count` times; print how long each took."""
    shaker, network, spans = shaker_of(Role.MASTER), TcpNetwork(), []
    for _ in range(count):
        connection = await network.dial(Address(host, port))
        started_at = time.perf_counter()
        channel = await shaker.connect(connection, expected=None)
        spans.append(time.perf_counter() - started_at)
        await trio.aclose_forcefully(channel.connection.stream)
        await trio.sleep(0.02)
    print(json.dumps(spans))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve)
    else:
        trio.run(dial, sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
