"""The ports of one member: reached directly, or where we listen for it.

Where connections to a worker do not come through, each port that its engine names gets
a listener of ours.  What comes in there is carried to that port, over a connection of
its own between us and the worker, dialled by whoever can.  All of it ends with the
lease.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from aemesh import limits
from aemesh.errors import AemeshError, EngineError, SettingsError, UnreachableError
from aemesh.master.probing import Probes, Way
from aemesh.master.remote import DialStream, say_first
from aemesh.model.address import Address
from aemesh.model.machine import Forward
from aemesh.model.names import NodeName
from aemesh.net.link import Link
from aemesh.net.pump import Meter, bared, carry, reset
from aemesh.net.transport import Connection, Network
from aemesh.protocol import wire

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Gate:
    """What a master has for the forwarded ports of all members."""

    network: Network
    probes: Probes
    host: Callable[[], str]  # where members reach us
    carried: trio.CapacityLimiter  # connections
    strangers: Counter[str] = field(default_factory=Counter)  # by their source
    for_strangers: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(1)
    )
    _told_full: bool = False

    def note_full(self) -> None:
        """Say once that connections wait: engines keep idle ones, and seem to hang."""
        if self.carried.available_tokens >= 1 or self._told_full:
            return
        self._told_full = True
        _log.warning(
            "%d connections to members go through here, which is the most: more wait "
            "until one ends.  Let their workers be reached, or have fewer of them",
            self.carried.total_tokens,
        )

    @contextmanager
    def place(self, source: str, *, known: bool) -> Iterator[bool]:
        """Hold a place for a connection that came in; False: there is none."""
        if known:
            yield True
            return
        alone = self.strangers.total() < limits.FORWARDED_STRANGERS
        if not alone or self.strangers[source] >= limits.STRANGERS_PER_SOURCE:
            yield False
            return
        self.strangers[source] += 1
        try:
            yield True
        finally:
            self.strangers -= Counter({source: 1})  # drops what is zero


def open_gate(
    network: Network,
    *,
    host: Callable[[], str],
    dialable: Callable[[Address], bool],
) -> Gate:
    """Return the gate of one master."""
    return Gate(
        network=network,
        probes=Probes(network, dialable=dialable),
        host=host,
        carried=trio.CapacityLimiter(limits.FORWARDED_CONNECTIONS),
    )


@dataclass(slots=True, eq=False, kw_only=True)
class MemberReach:
    """The ports of one member, in one lease; `run` it while that lasts."""

    name: NodeName
    host: str  # where its engine listens
    link: Link
    dial_stream: DialStream
    generation: int
    wish: Forward
    gate: Gate
    sources: frozenset[str]  # where it comes from, see `Address.source`
    is_member: Callable[[Address], bool]  # whether somebody from there is a member
    # What a successor has to know, before a port is used: ports, and our address.
    note: Callable[[Mapping[int, int], str], Awaitable[None]]
    tell: Callable[[Way], None]
    wall: Callable[[], float]
    meter: Meter = field(default_factory=Meter)
    way: Way | None = None
    since: float = 0.0  # seconds since 1970
    _ports: dict[int, int] = field(default_factory=dict)  # there: here
    _scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    _found: trio.Event = field(default_factory=trio.Event)
    _opening: trio.Lock = field(default_factory=trio.Lock)
    _dialling: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(limits.FORWARDS_OPENING)
    )
    _waiting: int = 0
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _crew: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Find out the way, and listen where it is needed, until `close`."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._crew:
                    task_status.started()
                    await self._find_way()
                    await self.link.wait_closed()
                    self._crew.cancel_scope.cancel()
        finally:
            self.close()

    async def _find_way(self) -> None:
        self.way = await self.gate.probes.way(self.link, self.host, self.wish)
        self.since = self.wall()
        self.tell(self.way)
        self._found.set()

    def close(self) -> None:
        """The lease is over: nobody is reached here any more."""
        self._scope.cancel()
        self._found.set()

    @property
    def is_closed(self) -> bool:
        """Whether the lease is over."""
        return self._scope.cancel_called

    async def reach(self, port: int) -> Address:
        """Return where others reach a port there; raises `EngineError`."""
        if not limits.LOWEST_PORT <= port < 65536:
            msg = f"port {port} of {self.name} is not for others"
            why = f"an engine's is from {limits.LOWEST_PORT} on"
            raise EngineError(msg, why=why)
        await self._found.wait()
        self._check_open(port)
        assert self.way is not None, "it was found, or this is closed"
        if not self.way.forwarded:
            return Address(self.host, port)
        async with self._opening:
            if port not in self._ports:
                await self._open(port)
        return Address(self.gate.host(), self._ports[port])

    async def resume(self, ports: Mapping[int, int], at: str) -> None:
        """Listen again where a former master did; raises `EngineError`.

        The engine goes by that address, which may be of another machine.
        """
        if ports and at != self.gate.host():
            msg = f"{self.name} was reached through {at or 'its former master'}"
            raise EngineError(msg, why="that address is not ours")
        for port, here in ports.items():
            await self._open(port, here=here)

    async def _open(self, port: int, *, here: int | None = None) -> None:
        assert self._crew is not None, "ports are asked for while it runs"
        self._check_open(port)  # it may have ended while we waited for our turn
        if len(self._ports) >= limits.FORWARDED_PORTS:
            oldest = next(iter(self._ports))
            del self._ports[oldest]
            self._scopes.pop(oldest).cancel()
        scope = trio.CancelScope()
        try:
            found = await self._crew.start(self._listen, port, here, scope)
        except SettingsError as exc:
            msg = f"port {port} of {self.name} is not forwarded"
            raise EngineError(msg, why=str(exc)) from exc
        self._ports[port], self._scopes[port] = found, scope
        self._check_open(port)  # nobody is to know of one that has ended
        await self.note(self._ports, self.gate.host())
        self._check_open(port)

    def _check_open(self, port: int) -> None:
        """Raise `EngineError` if the lease is over."""
        if self.is_closed:
            msg = f"port {port} of {self.name} is not reached"
            raise EngineError(msg, why="it serves the group no more")

    async def _listen(
        self,
        port: int,
        here: int | None,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[int],
    ) -> None:
        with scope:
            await self.gate.network.serve(
                partial(self._let_in, port),
                port=here,
                hosts=(self.gate.host(),),
                task_status=task_status,
            )

    async def _let_in(self, port: int, connection: Connection) -> None:
        """Own one connection that came in, from its first byte to its last."""
        known = self.is_member(connection.remote)
        try:
            with self.gate.place(connection.remote.source, known=known) as admitted:
                if not admitted or self._waiting >= limits.FORWARDS_WAITING:
                    _log.debug("%s is not let through here", connection.remote)
                else:
                    turns = self._dialling if known else self.gate.for_strangers
                    await self._take_turn(port, connection, turns)
        except Exception:  # noqa: BLE001 - what one connection meets ends no group
            _log.exception("a connection to %s went wrong", self.name)
        finally:
            with trio.CancelScope(shield=True):
                await reset(connection.stream)  # unless it is closed

    async def _take_turn(
        self, port: int, connection: Connection, turns: trio.CapacityLimiter
    ) -> None:
        """Carry a connection when fewer are carried than may be."""
        self._waiting += 1
        self.gate.note_full()
        try:
            await self.gate.carried.acquire_on_behalf_of(connection)
        finally:
            self._waiting -= 1
        try:
            await self._carry(port, connection, turns)
        finally:
            self.gate.carried.release_on_behalf_of(connection)

    async def _carry(
        self, port: int, connection: Connection, turns: trio.CapacityLimiter
    ) -> None:
        try:
            with trio.fail_after(limits.FORWARD_OPEN_AFTER):
                async with turns:
                    stream, first = await self._connect(port)
        except (AemeshError, trio.TooSlowError) as exc:
            _log.info("port %d of %s is not reached: %s", port, self.name, exc)
            return
        await carry(connection.stream, stream, self.meter, first=first)

    async def _connect(self, port: int) -> tuple[trio.abc.Stream, bytes]:
        """Return a stream to a port there; raises as a job's stream does."""
        channel = await self.dial_stream()
        body = wire.Forward(generation=self.generation, port=port)
        early = await say_first(channel, body)
        try:
            return await bared(channel, early=early)
        except BaseException as exc:
            await trio.aclose_forcefully(channel.connection.stream)
            if isinstance(exc, (trio.BrokenResourceError, trio.TooSlowError)):
                msg = f"{self.name} dropped a stream"
                raise UnreachableError(msg) from exc
            raise
