"""A worker's control socket: its owner asks it to leave, and sees how that goes.

A worker waits for weeks until somebody comes here, so what serves HTTP is loaded when
the first one does: six megabytes, and most of a tenth of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import trio

from aemesh.host.control.sockets import listening

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.host.control.http import Server
    from aemesh.worker.parting import Parting

_APP = "aemesh.worker.control_app"


async def serve_control(
    parting: Parting,
    socket_path: Path,
    *,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at `socket_path` until cancelled; the socket's file goes with it."""
    server: Server | None = None

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal server
        if server is None:
            made: Server = import_module(_APP).make_server(parting)
            server = made
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
