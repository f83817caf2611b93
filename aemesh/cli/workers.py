"""``aemesh workers``: list them, and drain some."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.meshes import master_options, mesh_of
from aemesh.cli.moments import moment
from aemesh.cli.options import json_option, state_option
from aemesh.cli.progress import progress
from aemesh.cli.receipts import receipt_line
from aemesh.cli.status import show_workers
from aemesh.client.mesh import Mesh
from aemesh.errors import UsageError


@click.group(invoke_without_command=True)
@master_options
@state_option
@json_option
@click.pass_context
def workers(
    ctx: click.Context,
    /,
    state: str | None,
    *,
    as_json: bool,
    **where: Any,  # noqa: ANN401 - of `master_options`
) -> None:
    """List the workers, or see to some."""
    if ctx.invoked_subcommand is not None:
        if where["master"] is not None:
            msg = "--master is for looking only"
            raise UsageError(msg, hint="workers are seen to on the master's machine")
        return
    found = mesh_of(state, **where).workers()
    if as_json:
        for worker in found:
            ui.write_json(msgspec.to_builtins(worker))
        return
    show_workers(found)


@workers.command()
@click.argument("names", metavar="WORKER...", nargs=-1, required=True)
@click.option("--by", metavar="WHEN", help="Gone from its group at 17:30, or in +10m.")
@click.option("--cancel", is_flag=True, help="Let them serve again.")
@state_option
@json_option
def drain(
    names: tuple[str, ...],
    by: str | None,
    state: str | None,
    *,
    cancel: bool,
    as_json: bool,
) -> None:
    """Take workers out of their groups, and give them no work until --cancel.

    Work and data move to others first.  With --by a worker is in use until its data
    has to move.
    """
    if cancel and by is not None:
        msg = "--by and --cancel exclude each other"
        raise UsageError(msg)
    mesh = Mesh(state)
    if cancel:
        for name in names:
            mesh.undrain(name)
            ui.say(f"{name} serves again")
        return
    by_after, haste = 30.0, "soon"
    if by is not None:
        now = time.time()
        by_after, haste = moment(by, now=now) - now, "late"
    with progress(f"draining {' '.join(names)}"):
        receipts = mesh.drain(*names, by_after=by_after, haste=haste)
    for receipt in receipts:
        if as_json:
            ui.write_json(msgspec.to_builtins(receipt))
        else:
            ui.write(ui.plain(receipt_line(receipt)))


@workers.command()
@click.argument("worker")
@state_option
@json_option
def readmit(worker: str, state: str | None, *, as_json: bool) -> None:
    """Take a WORKER back that was set aside."""
    view = Mesh(state).readmit(worker)
    if as_json:
        ui.write_json(msgspec.to_builtins(view))
        return
    if view.state == "draining":  # that is another thing than to be set aside
        ui.say(f"{view.name} gets no work yet: {view.note}")
    else:
        ui.say(f"{view.name} gets work again")
