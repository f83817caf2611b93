"""``aemesh leave``: take this machine's worker out, at an agreed time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.moments import moment
from aemesh.cli.options import json_option, state_option
from aemesh.cli.receipts import receipt_line, size
from aemesh.client.leaving import LocalWorker
from aemesh.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.view import DepartureView


@click.command()
@click.option("--by", metavar="WHEN", help="Gone at 17:30, in +10m, or at a date.")
@click.option("--quick", is_flag=True, help="Move nothing, and be gone in two seconds.")
@click.option("--cancel", is_flag=True, help="Stay after all.")
@click.option("--status", "show", is_flag=True, help="Only say how things stand.")
@state_option
@json_option
def leave(  # noqa: PLR0913 - the options of the command
    by: str | None,
    state: str | None,
    *,
    quick: bool,
    cancel: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Have the worker of this machine leave, and say what came of it.

    With --by it works until its data has to move, and is gone at that moment,
    whatever happens; without, it leaves as soon as its work and data have moved, in
    half a minute at most.  Ctrl-C here does not call it off: that is --cancel.
    """
    if (by is not None) + quick + cancel + show > 1:
        msg = "--by, --quick, --cancel and --status exclude each other"
        raise UsageError(msg)
    worker = LocalWorker(state)
    if cancel or show:
        view = worker.stay() if cancel else worker.departure()
        _show(view, as_json=as_json)
        return
    end = 0.0 if by is None else moment(by, now=time.time())
    haste = "now" if quick else "late" if by is not None else "soon"
    _show(_follow(worker.leave(end, haste)), as_json=as_json)


def _follow(views: Iterable[DepartureView]) -> DepartureView:
    """Say how it goes, each thing once; return the last."""
    said, last = "", None
    for last in views:
        line = _line(last)
        if line != said and last.receipt is None:
            ui.say(line)
        said = line
    if last is None or last.state not in ("left", "stays"):
        msg = "the worker left without a word"
        raise UnreachableError(msg, why="its last one was lost on the way")
    return last


def _show(view: DepartureView, *, as_json: bool) -> None:
    if as_json:
        ui.write_json(msgspec.to_builtins(view.receipt or view))
    elif view.receipt is not None:
        ui.write(ui.plain(receipt_line(view.receipt)))
    else:
        ui.write(_line(view))


def _line(view: DepartureView) -> str:
    if view.state == "stays":
        return "it stays"
    end = ui.moment(view.end)
    if view.state == "agreed":
        return f"it leaves at {end}"
    told = view.progress
    line = f"it leaves by {end}: {told.running} tasks there"
    if told.pieces or told.moved:
        line += (
            f", {told.moved} pieces moved ({size(told.moved_bytes)}), {told.pieces} "
            f"to go ({size(told.bytes)}, some {told.needs_after:.0f} s)"
        )
    return line if told.fits else f"{line}; not all of it fits"
