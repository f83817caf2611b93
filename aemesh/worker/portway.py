"""How others reach the ports of the engine on this machine: probed, or carried.

A master asks whether connections come through to us: we listen for a moment, and say a
word that it gave us over the link, so that nobody else's yes counts.  Where they do
not, it asks for a stream, and we connect that to the port of a job of its lease.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, SettingsError
from aemesh.net.pump import Meter, bared, carry, reset
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aemesh.net.link import Link
    from aemesh.net.shake import Channel
    from aemesh.net.transport import Connection, Network
    from aemesh.worker.held import Held

_log = logging.getLogger(__name__)


class PortWay:
    """The ways to the ports of one worker's jobs."""

    def __init__(self, network: Network, held: Held) -> None:
        self.meter = Meter()
        self._network = network
        self._held = held
        self._probes = 0
        self._carried: dict[trio.CancelScope, int] = {}  # in which generation

    def __repr__(self) -> str:
        return f"<PortWay {self.meter}>"

    async def run(self) -> None:
        """End what is carried for a lease that is over, until cancelled."""
        held = self._held
        while True:
            changed = held.changed
            lease = held.tenancy.lease
            for scope, generation in self._carried.items():
                ended = lease is None or held.tenancy.vacant
                if ended or (lease and lease.generation != generation):
                    scope.cancel()
            await changed.wait()

    async def probe(self, link: Link, body: wire.Probe) -> wire.Body:
        """Listen for a moment, and say the word; raises `RefusedError`."""
        if self._probes >= limits.PROBES_AT_ONCE:
            what = "there is no probe now"
            raise RefusedError(what, why=f"{self._probes} are under way")
        lease = self._held.tenancy.lease
        if lease is None or lease.master != link.peer.key_id:
            what = "a probe is for the master that holds this worker"
            raise RefusedError(what)
        crew = self._held.crew
        assert crew is not None, "commands come while the worker runs"
        try:
            port = await crew.start(self._listen, body)
        except SettingsError as exc:
            raise RefusedError(exc.what, why=exc.why) from exc
        return wire.Probed(port=port)

    async def _listen(
        self, body: wire.Probe, *, task_status: trio.TaskStatus[int]
    ) -> None:
        async def say(connection: Connection) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await connection.stream.send_all(body.nonce.encode())
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(connection.stream)
            scope.cancel()

        self._probes += 1
        try:
            with trio.move_on_after(limits.PROBE_AFTER) as scope:
                await self._network.serve(
                    say, port=None, hosts=(body.host,), task_status=task_status
                )
        finally:
            self._probes -= 1

    async def serve(
        self, channel: Channel, number: int, body: wire.Forward, *, early: bytes
    ) -> None:
        """Connect a stream to the port that it is for, and carry it to its end.

        The master hears why not, if it may not; raises as a stream does.
        """
        try:
            with self._place(body) as scope, scope:
                local = await self._connect(channel, body)
                await self._carry(channel, number, local, early)
        except AemeshError as exc:
            failed = wire.Failed(error=exc.name, what=str(exc)[:1000])
            await channel.stream.send_all(_framed(failed, number))

    async def _connect(self, channel: Channel, body: wire.Forward) -> Connection:
        """Connect to the port; raises `RefusedError` or `UnreachableError`."""
        address = await self._held.port_address(channel.peer.key_id, body)
        return await self._network.dial(address)

    async def _carry(
        self, channel: Channel, number: int, local: Connection, early: bytes
    ) -> None:
        try:
            await channel.stream.send_all(_framed(wire.Done(), number))
            stream, first = await bared(channel, early=early)
        except BaseException:
            await reset(local.stream)
            raise
        await carry(local.stream, stream, self.meter, first=first)

    @contextmanager
    def _place(self, body: wire.Forward) -> Iterator[trio.CancelScope]:
        """Hold a place among what is carried; raises `RefusedError`."""
        if len(self._carried) >= limits.FORWARDED_CONNECTIONS:
            what = f"port {body.port} is not forwarded"
            raise RefusedError(what, why=f"{len(self._carried)} connections are")
        scope = trio.CancelScope()
        self._carried[scope] = body.generation
        try:
            yield scope
        finally:
            del self._carried[scope]


def _framed(body: wire.Body, re: int) -> bytes:
    return encode_frame(wire.encode(body, re=re), limit=limits.HELLO_BYTES)
