"""``aemesh group``: list, add, remove, and move workers between them."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.delegation import span, wish_of
from aemesh.cli.meshes import master_options, mesh_of
from aemesh.cli.options import (
    assent_option,
    demand_of,
    demand_options,
    json_option,
    state_option,
)
from aemesh.cli.progress import progress
from aemesh.cli.spans import shown_span
from aemesh.cli.status import show_groups
from aemesh.client.mesh import Mesh
from aemesh.errors import UsageError
from aemesh.model.counted import counted
from aemesh.model.view import Delegate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.model.group import Demand
    from aemesh.model.view import MoveView, WorkerView


@click.group()
def group() -> None:
    """List, change and fill groups."""


@group.command("list")
@click.option("--why", is_flag=True, help="Tell each worker's place, and the reason.")
@master_options
@state_option
@json_option
def list_(
    state: str | None,
    *,
    why: bool,
    as_json: bool,
    **where: Any,  # noqa: ANN401 - of `master_options`
) -> None:
    """List the groups."""
    mesh = mesh_of(state, **where)
    if why:
        _tell_why(mesh.workers(), as_json=as_json)
        return
    found = mesh.groups()
    if as_json:
        for one in found:
            ui.write_json(msgspec.to_builtins(one))
        return
    show_groups(found)


def _tell_why(workers: Sequence[WorkerView], *, as_json: bool) -> None:
    """Show where each worker is, where it is to be, and the reason."""
    if as_json:
        for one in workers:
            ui.write_json(
                {
                    "worker": one.name,
                    "key": one.key,
                    "group": one.group,
                    "placed": one.placed,
                    "why": one.why or one.note or one.state,
                }
            )
        return
    ui.table(
        ("WORKER", "GROUP", "TO BE IN", "WHY"),
        (
            (one.name, one.group or "-", one.placed or "-", _reason(one))
            for one in workers
        ),
    )


def _reason(one: WorkerView) -> str:
    leaves = f"it leaves at {ui.moment(one.until)}" if one.until else ""
    return one.why or one.note or leaves or one.state


@group.command()
@click.argument("name")
@master_options
@state_option
@json_option
def show(
    name: str,
    state: str | None,
    *,
    as_json: bool,
    **where: Any,  # noqa: ANN401 - of `master_options`
) -> None:
    """Show all about the group NAME: who serves it, who does not, and why."""
    status = mesh_of(state, **where).group_status(name)
    if as_json:
        ui.write_json(msgspec.to_builtins(status))
        return
    one, wants = status.group, status.group.demand
    missing = f", {one.missing} missing" if one.missing else ""
    most = "any number" if wants.max is None else str(wants.max)
    workers = counted(len(one.members), "worker")
    ui.fields(
        {
            "group": f"{one.name} ({one.state})",
            "engine": f"{one.engine} {one.address}",
            "has": f"{workers}, {counted(one.cores, 'core')}{missing}",
            "wants": f"{wants.min} to {most}, by weight {wants.weight}",
            "requires": wants.require or "nothing",
            "waits": shown_span(wants.wait_after),
            **_told_setup(wants),
            **({"held": f"as it is, by {one.held}"} if one.held else {}),
            "note": one.note or "-",
        }
    )
    ui.write("")
    ui.table(
        ("WORKER", "GROUP", "WHY"),
        (
            (placed.worker, placed.group or "-", placed.why)
            for placed in (*status.members, *status.refused)
        ),
    )
    if status.history:
        ui.write("")
    for event in status.history:
        ui.write(ui.plain(f"{ui.moment(event.at)}  {event.kind:<16} {event.text}"))


def _told_setup(wants: Demand) -> dict[str, str]:
    """Return what was said of its engine's processes, if anything was."""
    settings = sorted(wants.settings.items())
    told = {
        "imports": ", ".join(wants.preload),
        "sets": ", ".join(f"{name}={value}" for name, value in settings),
    }
    return {name: text for name, text in told.items() if text}


@group.command()
@click.argument("name")
@click.option("--engine", default="dask", show_default=True, help="What runs on it.")
@demand_options
@state_option
def add(name: str, engine: str, state: str | None, **wishes: Any) -> None:  # noqa: ANN401 - of `demand_options`
    """Open the group NAME."""
    with progress(f"opening group {name}"):
        Mesh(state).open_group(name, engine, **demand_of(**wishes))
    ui.say(f"group {name} is open, engine {engine}")


@group.command("set")
@click.argument("name")
@demand_options
@state_option
@json_option
def set_(name: str, state: str | None, *, as_json: bool, **wishes: Any) -> None:  # noqa: ANN401 - of `demand_options`
    """Change what the group NAME wants; what is not said stays as it is.

    Workers that were moved to it by hand are shared again.  --preload and --set count
    for the processes of its engine that start from now on.
    """
    change = demand_of(**wishes)
    if not change:
        msg = "nothing is to be changed"
        hint = "`aemesh group set --help` lists what can be"
        raise UsageError(msg, hint=hint)
    view = Mesh(state).set_group(name, **change)
    if as_json:
        ui.write_json(msgspec.to_builtins(view))
        return
    wants = view.demand
    most = "any number of" if wants.max is None else wants.max
    having = f" having {wants.require}" if wants.require else ""
    missing = f"; {view.missing} missing" if view.missing else ""
    ui.say(f"group {name} wants {wants.min} to {most} workers{having}{missing}")


@group.command()
@click.argument("name")
@state_option
@json_option
def hold(name: str, state: str | None, *, as_json: bool) -> None:
    """Keep the group NAME at its size until Ctrl-C.

    Nobody joins it, is moved or given back; who leaves or is lost is told.
    """
    with Mesh(state).hold(name) as held:
        for view in itertools.chain((held.first,), held.changes()):
            if as_json:
                ui.write_json(msgspec.to_builtins(view))
            else:
                who = ", ".join(one.name for one in view.members) or "nobody"
                ui.say(f"{name} is held with {who}; Ctrl-C lets it go")


@group.command()
@click.argument("name")
@state_option
def remove(name: str, state: str | None) -> None:
    """Close the group NAME and give its workers back."""
    with progress(f"closing group {name}"):
        Mesh(state).close_group(name)
    ui.say(f"group {name} is closed")


@group.command()
@click.argument("words", metavar="WORKER... GROUP", nargs=-1, required=True)
@click.option("--auto", is_flag=True, help="Share the WORKERs again; without GROUP.")
@state_option
@json_option
def move(
    words: tuple[str, ...], state: str | None, *, auto: bool, as_json: bool
) -> int:
    """Move each WORKER to GROUP, after its work has moved to others.

    It stays there until GROUP's wishes change, or `--auto` says otherwise.
    """
    if not auto and len(words) == 1:
        msg = "which group?"
        raise UsageError(msg, hint=f"aemesh group move {words[0]} GROUP")
    workers, name = (words, None) if auto else (words[:-1], words[-1])
    who = " ".join(workers)
    with progress(f"sharing {who}" if auto else f"moving {who} to {name}"):
        views = Mesh(state).move_all(workers, name)
    for view in views:
        if as_json:
            ui.write_json(msgspec.to_builtins(view))
        else:
            _tell_move(view, name)
    return max(int(view.error["exit_code"] or 0) if view.error else 0 for view in views)


def _tell_move(view: MoveView, name: str | None) -> None:
    receipt = view.receipt
    if view.error is not None:
        why = f": {view.error['why']}" if view.error["why"] else ""
        ui.say(f"{view.worker} is not in {name}: {view.error['what']}{why}")
    elif receipt is None:
        ui.write(ui.plain(f"{view.worker} is shared again"))
    elif receipt.group == name:
        ui.write(ui.plain(f"{view.worker} is in {name} already, and stays there"))
    else:
        left = "in peace" if receipt.graceful else "in haste"
        ui.write(
            ui.plain(
                f"{view.worker} left {receipt.group} {left} in "
                f"{receipt.took_after:.1f} s ({receipt.moved} pieces of data moved, "
                f"{receipt.lost} lost), and is in {name}"
            )
        )


@group.command()
@click.argument("name", metavar="GROUP")
@click.argument("life", metavar="SPAN|off")
@click.option("--delegate-from", metavar="FILE", help="Your certificate and key.")
@state_option
def delegate(
    name: str, life: str, delegate_from: str | None, state: str | None
) -> None:
    """Hand your X.509 identity on to the jobs of GROUP, or stop that.

    SPAN is how long each job has it, like 8h, and at most 12h.  Members are brought
    up anew, one after the other.
    """
    off = Delegate(life_after=0.0)
    wish = off if life == "off" else wish_of(life, delegate_from)
    told = Mesh(state).delegate(name, wish or off)
    if not told.subject:
        ui.say(f"jobs of {name} have no identity of yours from now on")
        return
    ui.say(f"jobs of {name} act as {ui.plain(told.subject)}, for {life} each")


@group.command()
@click.argument("name", metavar="GROUP")
@click.option("--out", metavar="DIR", help="Where to; else ./aemesh-GROUP.")
@click.option("--for", "life", metavar="SPAN", default="8h", show_default=True)
@assent_option("--force", "force", "Overwrite those that are there.")
@state_option
@json_option
def credentials(  # noqa: PLR0913 - the options of the command
    name: str,
    out: str | None,
    life: str,
    state: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write a key and certificate of GROUP, for tools of your own.

    They hold for SPAN, and no longer than the group is up.
    """
    from aemesh.client.credentials import save_credentials  # noqa: PLC0415

    mesh, life_after = Mesh(state), span(life)
    folder = Path(out or f"aemesh-{name}").absolute()
    env = {
        key: value.replace("{tls}", str(folder))
        for key, value in mesh.connect(name).env.items()
    }
    save_credentials(
        folder,
        lambda csr: mesh.certify(name, csr, life_after=life_after),
        force=force,
    )
    if as_json:
        ui.write_json({"group": name, "folder": str(folder), "env": env})
        return
    ui.say(f"ca.pem, cert.pem and key.pem are in {folder}, good for {life}")
    ui.say("tools find the group by these variables:")
    for key, value in env.items():
        ui.write(ui.plain(f"export {key}={shlex.quote(value)}"))
