"""What comes in at a node: through the door, shaken hands with, and handed on.

A worker and a master listen in the same way; what they do with a channel is theirs.
One connection's error ends that connection, and never the node.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aemesh.net.entrance import Door, Entry
    from aemesh.net.shake import Channel, Shaker
    from aemesh.net.transport import Connection

# Owns a channel from the verdicts to its end.
Serve = Callable[["Channel"], Awaitable[None]]


class Listener:
    """Accepts for one node."""

    def __init__(
        self, door: Door, shaker: Callable[[Entry], Shaker], serve: Serve
    ) -> None:
        self._door = door
        self._shaker = shaker
        self._serve = serve

    def __repr__(self) -> str:
        return f"<Listener behind {self._door.gate!r}>"

    async def admit(self, connection: Connection) -> None:
        """Own one connection that came in, from its first byte to its last."""
        try:
            channel = await self._let_in(connection)
            if channel is not None:
                with self.trusting(connection):
                    await self._serve(channel)
        except Exception as exc:  # noqa: BLE001 - what one peer does ends no node
            self._door.log(
                "a connection of %s went wrong in a way of its own",
                connection.remote,
                level=logging.ERROR,
                error=exc,
            )
            await trio.aclose_forcefully(connection.stream)

    @contextmanager
    def trusting(self, connection: Connection) -> Iterator[None]:
        """Hold the other end's address for one that is never shut out (threat 88)."""
        source = connection.remote.source
        self._door.gate.trust(source)
        try:
            yield
        finally:
            self._door.gate.untrust(source)

    async def _let_in(self, connection: Connection) -> Channel | None:
        """Return the channel of whoever is let in; what is not is closed."""
        entry = self._door.enter(connection)
        if entry is None:
            await trio.aclose_forcefully(connection.stream)
            return None
        try:
            with entry.scope:
                return await self._shaker(entry).accept(connection)
        except AemeshError as exc:
            entry.fail(f"{exc}")
            return None
        except Exception:
            entry.fail("a bug of ours")
            raise
        finally:
            entry.done()
        entry.fail("it gave its place to another")
        return None
