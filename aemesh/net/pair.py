"""A network inside one process: connections are socket pairs, nobody listens.

Laptop mode has its master and its worker in one process; they talk as they would in
an office, with the same handshake and TLS, without a port that anybody could reach.
"""

from __future__ import annotations

import socket

import trio

from aemesh.errors import UnreachableError
from aemesh.model.address import Address
from aemesh.net.transport import Connection, Handler
from aemesh.tasks.nursery import open_crew

_LOOPBACK = "127.0.0.1"


class PairNetwork:
    """Joins those who dial with the one who serves, in this process."""

    def __init__(self) -> None:
        self._send: trio.MemorySendChannel[Connection] | None = None

    async def dial(self, address: Address) -> Connection:
        """Connect to whoever serves; raises `UnreachableError` when nobody does."""
        if self._send is None:
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why="nobody serves yet")
        ours, theirs = (
            trio.SocketStream(trio.socket.from_stdlib_socket(one))
            for one in socket.socketpair()
        )
        here = Address(_LOOPBACK, 1)
        await self._send.send(Connection(theirs, address, here))
        return Connection(ours, here, address)

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """Return the address that `host` is; there are no names here."""
        await trio.lowlevel.checkpoint()
        return (Address(host, port),)

    async def serve(
        self,
        handler: Handler,
        *,
        port: int | None,
        hosts: tuple[str, ...] = (),
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until cancelled; see `aemesh.net.transport.Network.serve`."""
        del hosts
        self._send, receive = trio.open_memory_channel[Connection](0)
        async with open_crew() as crew:
            task_status.started(port or 1)
            async for connection in receive:
                crew.start_soon(handler, connection)
