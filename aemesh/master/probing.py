"""Whether connections to the engine on a worker come through, found out by trying.

The worker listens for a moment, at the address where its engine will; we connect, and
it has to say a word that it got over the link.  So an open port of somebody else, or a
box on the way that takes every connection, is not mistaken for it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import trio

from aemesh import limits
from aemesh.errors import AemeshError
from aemesh.master.remote import ask
from aemesh.model.address import Address
from aemesh.model.machine import Forward
from aemesh.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aemesh.net.link import Link
    from aemesh.net.transport import Network


@dataclass(frozen=True, slots=True)
class Way:
    """How a worker's ports are reached, and why so."""

    forwarded: bool
    why: str


class Probes:
    """What was found out about each link; one for each master."""

    def __init__(
        self, network: Network, *, dialable: Callable[[Address], bool]
    ) -> None:
        self._network = network
        self._dialable = dialable
        self._found: WeakKeyDictionary[Link, dict[str, Way]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Probes of {len(self._found)} links>"

    async def run(self, wait_move: Callable[[], Awaitable[None]]) -> None:
        """Forget all that was found whenever our network is another one."""
        while True:
            await wait_move()
            self._found.clear()

    async def way(self, link: Link, host: str, wish: Forward) -> Way:
        """Return how the ports at `host` behind this link are reached."""
        if wish is not Forward.AUTO:
            said = f"its owner said --forward {wish.value}"
            return Way(wish is Forward.YES, said)
        found = self._found.get(link, {})
        if host not in found:
            found[host] = await self._probe(link, host)
            self._found[link] = found
        return found[host]

    async def _probe(self, link: Link, host: str) -> Way:
        nonce = secrets.token_hex(16)
        body = wire.Probe(host=host, nonce=nonce)
        why = f"nothing came from {host} in {limits.PROBE_AFTER:g} s"
        try:
            probed = await ask(link, body, wire.Probed, within=limits.PROBE_AFTER)
            with trio.move_on_after(limits.PROBE_AFTER):
                return await self._try(link, Address(host, probed.port), nonce)
        except AemeshError as exc:
            why = str(exc)
        return Way(forwarded=True, why=why)

    async def _try(self, link: Link, address: Address, nonce: str) -> Way:
        """Connect, and hear what is said there; raises as `Network.dial`."""
        is_its = address.host == link.connection.remote.host
        if not is_its and not self._dialable(address):
            return Way(True, f"{address.host} is no address to try")
        connection = await self._network.dial(address)
        try:
            said = await _hear(connection.stream, len(nonce))
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(connection.stream)
        if not secrets.compare_digest(said, nonce.encode()):
            return Way(True, f"somebody else answers at {address.host}")
        return Way(False, f"a connection to {address.host} came through")


async def _hear(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    said = b""
    try:
        while len(said) < count:
            piece = await stream.receive_some(count - len(said))
            if not piece:
                break
            said += piece
    except trio.BrokenResourceError:
        pass
    return said
