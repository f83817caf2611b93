"""A network in memory: hosts by address, streams without sockets, no real time.

Under trio's autojump clock a whole mesh runs in no time.  It is held to the same
checks as `aemesh.net.tcp` (`aemesh.testing.checks_network`).
"""

from __future__ import annotations

import itertools

import trio
import trio.testing

from aemesh.errors import SettingsError, UnreachableError
from aemesh.model.address import Address
from aemesh.net.transport import Connection, Handler
from aemesh.tasks.nursery import open_crew


class MemorySegment:
    """A cable that hosts are plugged into; any of them can be `cut`."""

    def __init__(self) -> None:
        self.listeners: dict[Address, trio.MemorySendChannel[Connection]] = {}
        self.cut: set[str] = set()
        self.dialled: list[Address] = []
        self.ports = itertools.count(40000)

    def host(self, ip: str) -> MemoryNetwork:
        """Return the network as the host of this address sees it."""
        return MemoryNetwork(self, ip)


class MemoryNetwork:
    """One host's view of a `MemorySegment`."""

    def __init__(self, segment: MemorySegment, ip: str) -> None:
        self._segment = segment
        self.ip = ip

    async def dial(self, address: Address) -> Connection:
        """Connect to `address`; raises `UnreachableError`."""
        await trio.lowlevel.checkpoint()
        self._segment.dialled.append(address)
        cut = self._segment.cut
        listener = self._segment.listeners.get(address)
        if listener is None or address.host in cut or self.ip in cut:
            raise UnreachableError(f"cannot reach {address}", why="nobody listens")
        ours, theirs = trio.testing.memory_stream_pair()
        local = Address(self.ip, next(self._segment.ports))
        await listener.send(Connection(theirs, address, local))
        return Connection(ours, local, address)

    async def serve(
        self,
        handler: Handler,
        *,
        port: int,
        hosts: tuple[str, ...] = (),
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until cancelled; see `aemesh.net.transport.Network.serve`."""
        address = Address((*hosts, self.ip)[0], port or next(self._segment.ports))
        if address in self._segment.listeners:
            raise SettingsError(f"cannot listen on port {port}", why="it is taken")
        send, receive = trio.open_memory_channel[Connection](0)
        self._segment.listeners[address] = send
        try:
            async with open_crew() as crew:
                task_status.started(address.port)
                async for connection in receive:
                    crew.start_soon(handler, connection)
        finally:
            del self._segment.listeners[address]
