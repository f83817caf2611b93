"""A network of one listener on this machine: a socket that is handed in.

A master and its keeper talk over a unix socket that only their user reaches, as they
would over TCP: with the same handshake and TLS.  But silence is no loss: the kernel
tells at once when either has ended, and one that was stopped (Ctrl-Z) goes on.  For
heirs, on other machines, a keeper serves another network as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from aemesh.errors import UnreachableError
from aemesh.model.address import Address
from aemesh.net.transport import Connection, Handler, Network
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextlib import AbstractContextManager

HERE = Address("127.0.0.1", 1)  # stands for whoever is on this machine


class LocalNetwork:
    """Serves, or dials, the socket there is; `also` is served beside it."""

    def __init__(
        self,
        *,
        listen: Callable[[], AbstractContextManager[socket.socket]] | None = None,
        connect: Callable[[], socket.socket] | None = None,
        also: Network | None = None,
    ) -> None:
        self._listen = listen
        self._connect = connect
        self._also = also

    async def dial(self, address: Address) -> Connection:
        """Connect to the socket, whatever the address; raises `UnreachableError`."""
        assert self._connect is not None, "made to serve"
        try:
            # A unix socket takes a connection, or refuses it, at once.
            sock = self._connect()
        except OSError as exc:
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why=exc.strerror or str(exc)) from exc
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        return Connection(stream, HERE, address, lost_after=math.inf)

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
        """Accept until cancelled; reports the port of the other network, 0 without."""
        assert self._listen is not None, "made to dial"
        with self._listen() as sock:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            async with open_crew() as crew:
                crew.start_soon(self._accept, listener, handler)
                served = 0
                if self._also is not None:
                    served = await crew.start(self._serve_also, handler, port, hosts)
                task_status.started(served)

    async def _accept(self, listener: trio.SocketListener, handler: Handler) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            await handler(Connection(stream, HERE, HERE, lost_after=math.inf))

        await trio.serve_listeners(serve, [listener])

    async def _serve_also(
        self,
        handler: Handler,
        port: int | None,
        hosts: tuple[str, ...],
        *,
        task_status: trio.TaskStatus[int],
    ) -> None:
        assert self._also is not None
        await self._also.serve(handler, port=port, hosts=hosts, task_status=task_status)
