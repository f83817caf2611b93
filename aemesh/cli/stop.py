"""``aemesh stop``: end the master of a state directory."""

from __future__ import annotations

import os
import select

import click

from aemesh.cli import ui
from aemesh.cli.options import state_option
from aemesh.cli.progress import progress
from aemesh.client.mesh import Mesh
from aemesh.errors import UnreachableError

# Groups are closed first, which is bounded by `limits.RETIRE_AFTER`; twice that.
_STOP_AFTER = 60.0


@click.command()
@state_option
def stop(state: str | None) -> None:
    """Stop the master."""
    mesh = Mesh(state)
    pid = mesh.status().pid
    # Taken before the master ends, so that the number cannot come to mean another.
    process = _handle(pid)
    mesh.stop()
    if process is None:
        ui.say("the master is stopping")
        return
    try:
        with progress(f"waiting for the master (process {pid}) to end"):
            ended, _, _ = select.select([process], [], [], _STOP_AFTER)
    finally:
        os.close(process)
    if not ended:
        msg = f"the master (process {pid}) still runs"
        raise UnreachableError(msg, why=f"it was asked {_STOP_AFTER:g} s ago")
    ui.say("the master has stopped")


def _handle(pid: int) -> int | None:
    """Return a file descriptor that is readable when the process has ended.

    None where there are none (not Linux), or for a process that we cannot see.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
