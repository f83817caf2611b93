"""``aemesh runs``: what durable runs have kept, and how to be rid of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.client.mesh import Mesh
from aemesh.errors import UsageError

if TYPE_CHECKING:
    from aemesh.client.runs import Runs
    from aemesh.model.run import RunView

_group_option = click.option(
    "--group",
    "group_name",
    metavar="NAME",
    help="The run's group, if several have one of this key.",
)


@click.group(invoke_without_command=True)
@state_option
@json_option
@click.pass_context
def runs(ctx: click.Context, /, state: str | None, *, as_json: bool) -> None:
    """List and remove what durable runs have kept."""
    if ctx.invoked_subcommand is not None:
        return
    views = Mesh(state).runs.all()
    if as_json:
        for view in views:
            ui.write_json(msgspec.to_builtins(view))
        return
    if not views:
        ui.say("no runs")
        return
    ui.table(
        ("RUN", "GROUP", "DONE", "SIZE", "USED", "WHAT"),
        (
            (
                view.key,
                view.group,
                _done(view),
                _size(view.bytes),
                ui.moment(view.used_at),
                view.title,
            )
            for view in views
        ),
    )


@runs.command()
@click.argument("key")
@_group_option
@state_option
@json_option
def show(key: str, group_name: str | None, state: str | None, *, as_json: bool) -> None:
    """Show the items of a run that are committed, in the order in which they were."""
    found = Mesh(state).runs
    view = _found(found, key, group_name)
    if as_json:
        ui.write_json(msgspec.to_builtins(view))
        for item in found.of(view).items():
            ui.write_json(msgspec.to_builtins(item))
        return
    ui.fields(
        {
            "run": view.key,
            "group": view.group,
            "what": view.title,
            "done": f"{_done(view)} items, {_size(view.bytes)}",
            "in the middle": f"{view.checkpoints} items have a checkpoint",
            "begun": ui.moment(view.created_at),
            "used": ui.moment(view.used_at),
        }
    )
    rows = [
        (
            item.title or item.id,
            _size(item.size),
            item.worker or "-",
            ui.moment(item.at),
            item.digest[:12],
        )
        for item in found.of(view).items()
    ]
    if rows:
        ui.write("")
        ui.table(("ITEM", "SIZE", "WORKER", "COMMITTED", "SHA256"), rows)


@runs.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@_group_option
@state_option
def rm(keys: tuple[str, ...], group_name: str | None, state: str | None) -> None:
    """Remove runs with all they have kept: the next of this key begins anew."""
    found = Mesh(state).runs
    views = [_found(found, key, group_name) for key in keys]
    for view in views:
        found.drop(view.group, view.key)
        ui.say(f"removed run {view.key}: {view.items} items, {_size(view.bytes)}")


def _found(found: Runs, key: str, group: str | None) -> RunView:
    """Return the run of this key, whose group need not be said if there is one."""
    if group is not None:
        return found.show(group, key)
    views = [view for view in found.all() if view.key == key]
    if not views:
        msg = f"there is no run {key}"
        raise UsageError(msg, hint="`aemesh runs` lists what there is")
    if len(views) > 1:
        names = ", ".join(view.group for view in views)
        msg = f"several groups have a run {key}"
        raise UsageError(msg, why=f"groups {names}", hint="say which: `--group NAME`")
    return views[0]


def _done(view: RunView) -> str:
    """Return how many are done; of how many, unless former calls asked for others."""
    if view.items > view.total:
        return f"{view.items}"
    return f"{view.items} of {view.total}"


def _size(size: int) -> str:
    """Return a number of bytes as people read it."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
