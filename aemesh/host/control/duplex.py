"""A request whose body and answer flow at the same time, for as long as both ends like.

The problem: the server reads a request ahead into a short queue, and sees that the
client hung up only when it reads on.  While what the client sends goes to somebody who
does not take it, it reads nothing, so that the client would seem to be there for ever.

Here the socket itself is watched: the kernel says when the other end is closed, even
while bytes that nobody wants wait in front of that.
"""

from __future__ import annotations

import logging
import select
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)
# The key of a connection's `Line` in the state that its requests get.
LINE = "aemesh.line"
# The server shuts a connection while we may be in the midst of a write.
_CLOSED = (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Line:
    """The connection below a request."""

    socket: trio.socket.SocketType
    scope: trio.CancelScope  # of all that serves it

    async def wait_hung_up(self) -> None:
        """Return once the client has closed its end, or died."""
        with closing(select.epoll()) as epoll:
            # Nothing is asked for: what is told anyway is the end.
            epoll.register(self.socket.fileno(), 0)
            await trio.lowlevel.wait_readable(epoll.fileno())

    def end(self) -> None:
        """Let the connection go, with whatever is still on its way to us."""
        self.scope.cancel()


class Exchange:
    """What a request says and what it is told, piece by piece, both ways at once.

    Nothing is read ahead by us, and a client that does not read makes `write` wait.
    """

    def __init__(self, receive: Receive, send: Send, scope: trio.CancelScope) -> None:
        self._receive = receive
        self._send = send
        self._scope = scope  # of the talk
        self._more = True
        self.begun = False

    async def read(self) -> bytes:
        """Return the next piece of the request; empty at the end that was meant.

        A request that breaks off ends the talk: half a file must not look like one.
        """
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._scope.cancel()
                await trio.lowlevel.checkpoint()
            self._more = message.get("more_body", False)
            if body := message.get("body", b""):
                return bytes(body)
        return b""

    async def begin(self, media_type: str) -> None:
        """Say that the request is granted; from now on `write` may follow."""
        self.begun = True
        head = Response(media_type=media_type)
        del head.headers["content-length"]
        head.headers["cache-control"] = "no-store"
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": head.raw_headers,
            }
        )

    async def write(self, data: bytes) -> None:
        """Send one piece of the answer."""
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    async def finish(self) -> None:
        """End the answer as it was meant; without this the client sees it break off."""
        await self._send({"type": "http.response.body", "body": b""})


class Duplex:
    """A response that is a talk: `talk` runs as long as the client is there.

    An error before it has begun is answered by what `refuse` makes of it; after that
    the client sees the answer break off.
    """

    def __init__(
        self,
        talk: Callable[[Exchange], Awaitable[None]],
        *,
        refuse: Callable[[Exception], ASGIApp],
    ) -> None:
        self._talk = talk
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the talk, as ASGI has it, and then let the connection go."""
        line: Line = scope["state"][LINE]
        async with trio.open_nursery() as nursery:
            exchange = Exchange(receive, send, nursery.cancel_scope)
            nursery.start_soon(_cancel_when_hung_up, line, nursery.cancel_scope)
            try:
                await self._talk(exchange)
            except _CLOSED:
                pass  # the client went, and the server let it go before we knew
            except Exception as error:  # noqa: BLE001 - per request; told or logged
                if exchange.begun:
                    log.warning("a talk on the control socket broke off: %s", error)
                else:
                    await self._refuse(error)(scope, receive, send)
            nursery.cancel_scope.cancel()
        # What the client sent and nobody took must not keep the server in its read.
        line.end()


async def _cancel_when_hung_up(line: Line, scope: trio.CancelScope) -> None:
    await line.wait_hung_up()
    scope.cancel()
