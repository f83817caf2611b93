"""A control socket to which hardly anybody comes.

What serves HTTP is loaded when the first one does: six megabytes, and most of a tenth
of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh.host.control.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aemesh.host.control.http import Server


async def serve_lazily(
    make_server: Callable[[], Server],
    socket_path: Path,
    *,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at `socket_path` until cancelled; the socket's file goes with it."""
    server: Server | None = None

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal server
        if server is None:
            server = make_server()
        await server.serve(stream)

    with listening(socket_path) as sock:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(trio.serve_listeners, serve, [listener])
                task_status.started(socket_path)
                await trio.sleep_forever()
            finally:
                if server is not None:
                    server.hang_up()
