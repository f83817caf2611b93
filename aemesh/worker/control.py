"""A worker's control socket: its owner asks it to leave, and sees how that goes.

A worker waits for weeks until somebody comes here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import trio

from aemesh.host.control.lazily import serve_lazily

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

    def make_server() -> Server:
        made: Server = import_module(_APP).make_server(parting)
        return made

    await serve_lazily(make_server, socket_path, task_status=task_status)
