"""``aemesh status`` and ``events``: what a running master tells, and its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.meshes import master_options, mesh_of
from aemesh.cli.options import json_option, state_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.model.view import (
        EventView,
        GroupView,
        ImposterView,
        StatusView,
        WorkerView,
    )


@click.command()
@master_options
@state_option
@json_option
def status(state: str | None, *, as_json: bool, **where: Any) -> None:  # noqa: ANN401 - of `master_options`
    """Show the master, its groups, workers."""
    shown = mesh_of(state, **where).status()
    if as_json:
        ui.write_json(msgspec.to_builtins(shown))
        return
    _master(shown)
    ui.write("")
    show_groups(shown.groups)
    ui.write("")
    show_workers(shown.workers)
    if shown.imposters:
        ui.write("")
        show_imposters(shown.imposters)


@click.command()
@state_option
@json_option
@click.option("--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option("--after", default=0, metavar="N", help="Only events beyond number N.")
@master_options
def events(
    state: str | None,
    *,
    as_json: bool,
    follow: bool,
    after: int,
    **where: Any,  # noqa: ANN401 - of `master_options`
) -> None:
    """Tell what happened, and what happens."""
    for event in mesh_of(state, **where).events(after, follow=follow):
        if as_json:
            ui.write_json(msgspec.to_builtins(event))
        else:
            ui.write(_line(event))


def show_groups(groups: Sequence[GroupView]) -> None:
    """Print the table of groups."""
    if not groups:
        ui.say("no groups")
        return
    ui.table(
        ("GROUP", "ENGINE", "STATE", "CORES", "MEMBERS", "NOTE"),
        (
            (g.name, g.engine, g.state, str(g.cores), " ".join(g.members), g.note)
            for g in groups
        ),
    )


def show_workers(found: Sequence[WorkerView]) -> None:
    """Print the table of workers."""
    if not found:
        ui.say("no workers")
        return
    ui.table(
        (
            *("WORKER", "STATE", "TRUST", "GROUP", "HELD BY"),
            *("CORES", "MEMORY", "SPARES", "ADDRESS", "NOTE"),
        ),
        (
            (
                worker.name,
                worker.state,
                worker.trust,
                worker.group or "-",
                _holder(worker),
                str(worker.cores),
                ui.memory(worker.memory),
                _spares(worker),
                worker.address,
                "; ".join(
                    filter(None, (_leaves(worker), _through(worker), worker.note))
                ),
            )
            for worker in found
        ),
    )


def _spares(worker: WorkerView) -> str:
    """Return how many processes wait there, and what they take of its memory."""
    if not worker.spares:
        return "-"
    return f"{worker.spares} ({worker.spare_memory / 2**20:.0f} MiB)"


def _holder(worker: WorkerView) -> str:
    group = f" ({worker.held_group})" if worker.held_group else ""
    return f"{worker.held_by}{group}" if worker.held_by else "-"


def show_imposters(found: Sequence[ImposterView]) -> None:
    """Print the table of who pretended to be a worker, and where to."""
    ui.table(
        ("IMPOSTER OF", "POINTS TO", "FIRST", "LAST", "TIMES", "KEY", "WHY"),
        (
            (
                one.name,
                " ".join(one.addresses) or "-",
                ui.moment(one.first_at),
                ui.moment(one.last_at),
                str(one.times),
                one.key or "-",
                one.reason,
            )
            for one in found
        ),
    )


def _through(worker: WorkerView) -> str:
    ports = worker.ports
    if ports is None or ports.way == "direct":
        return ""
    since = ui.moment(ports.since)
    return f"reached through the master since {since}: {ports.why}"


def _leaves(worker: WorkerView) -> str:
    return f"leaves at {ui.moment(worker.until)}" if worker.until else ""


def _master(shown: StatusView) -> None:
    ui.fields(
        {
            "master": f"{shown.name} ({_version(shown)})",
            "key": f'{shown.key} "{shown.words}"',
            "mode": shown.mode,
            "listening": ", ".join(shown.listening) or "nowhere",
            "since": ui.moment(shown.started_at),
            "state": shown.state_dir or "-",
        }
    )


def _version(shown: StatusView) -> str:
    process = f", process {shown.pid}" if shown.pid else ""  # from afar it is not told
    return f"aemesh {shown.version}{process}"


def _line(event: EventView) -> str:
    return ui.plain(
        f"{event.number:>5}  {ui.moment(event.at)}  {event.kind:<16} {event.text}"
    )
