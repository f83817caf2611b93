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

MemoryEnd = trio.StapledStream[
    trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream
]


class MemorySegment:
    """A cable that hosts are plugged into; any of them can be `cut`.

    What is sent to or from a host that is cut arrives when it is plugged in again and
    the same side sends once more, as with TCP; until then neither side notices.
    """

    def __init__(self) -> None:
        self.listeners: dict[Address, trio.MemorySendChannel[Connection]] = {}
        self.cut: set[str] = set()
        self.closed: set[str] = set()  # hosts that refuse incoming connections
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
        refused = address.host in self._segment.closed - {self.ip}
        if listener is None or refused or address.host in cut or self.ip in cut:
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why="nobody listens")
        one, other = trio.testing.memory_stream_pair()
        ends = (self.ip, address.host)
        ours, theirs = (_Plugged(end, self._segment, ends) for end in (one, other))
        local = Address(self.ip, next(self._segment.ports))
        try:
            await listener.send(Connection(theirs, address, local))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            why = "it stopped to listen"
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why=why) from exc
        return Connection(ours, local, address)

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
        address = Address((*hosts, self.ip)[0], port or next(self._segment.ports))
        if address in self._segment.listeners:
            msg = f"cannot listen on port {port}"
            raise SettingsError(msg, why="it is taken")
        send, receive = trio.open_memory_channel[Connection](0)
        self._segment.listeners[address] = send
        try:
            async with open_crew() as crew:
                task_status.started(address.port)
                async for connection in receive:
                    crew.start_soon(handler, connection)
        finally:
            del self._segment.listeners[address]
            receive.close()


class _Plugged(trio.abc.HalfCloseableStream):
    """One end of a connection over a `MemorySegment`."""

    def __init__(
        self, inner: MemoryEnd, segment: MemorySegment, ends: tuple[str, str]
    ) -> None:
        self._inner = inner
        self._segment = segment
        self._ends = ends
        self._held = b""

    @property
    def _is_cut(self) -> bool:
        return not self._segment.cut.isdisjoint(self._ends)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._held += bytes(data)
        if self._is_cut:
            await trio.lowlevel.checkpoint()
        else:
            held, self._held = self._held, b""
            await self._inner.send_all(held)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if not self._is_cut:
            await self._inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        if not self._is_cut:
            await self._inner.send_stream.aclose()
        await self._inner.receive_stream.aclose()
