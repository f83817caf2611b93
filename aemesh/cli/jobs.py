"""``aemesh jobs``, ``attach`` and ``logs``: scripts that run without a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.cli.progress import progress
from aemesh.cli.spans import shown_span, span
from aemesh.client.joboutput import last_lines, output_start, read_output
from aemesh.client.jobs import JobFolder
from aemesh.errors import UsageError
from aemesh.model.counted import counted

if TYPE_CHECKING:
    from collections.abc import Sized

    from aemesh.client.jobs import ClientJob
    from aemesh.model.view import ClientJobView

_INTERRUPTED = 130

_tail_option = click.option(
    "--tail",
    type=click.IntRange(0),
    metavar="N",
    help="Only the last N lines of what is there.",
)


@click.group(invoke_without_command=True)
@state_option
@json_option
@click.pass_context
def jobs(ctx: click.Context, /, state: str | None, *, as_json: bool) -> None:
    """List and end scripts that run detached.

    A job is `running`; `done`, or `failed` with its exit code; `lost` if it is gone
    and nobody saw how; `elsewhere` if another machine of this folder started it.
    """
    if ctx.invoked_subcommand is not None:
        return
    views = [job.view() for job in JobFolder(state).all()]
    if as_json:
        for view in views:
            ui.write_json(msgspec.to_builtins(view))
        return
    if not views:
        ui.say("no jobs")
        return
    ui.table(
        ("JOB", "STATE", "GROUP", "SINCE", "AGE", "SCRIPT"),
        (
            (
                view.id,
                _state(view),
                view.group or "-",
                ui.moment(view.started_at),
                shown_age(view.age_after),
                " ".join((view.script, *view.args)),
            )
            for view in views
        ),
    )


@jobs.command()
@click.argument("job")
@click.option(
    "--within",
    type=span,
    default="10s",
    show_default=True,
    metavar="SPAN",
    help="How long the script may take to end by itself.",
)
@state_option
def end(job: str, within: float, state: str | None) -> None:
    """End JOB: it is asked first (SIGTERM), and then killed with all it started."""
    found = JobFolder(state).find(job)
    if found.view().state == "elsewhere":
        msg = f"job {found.id} runs on {found.record.host}"
        raise UsageError(msg, hint=f"on {found.record.host}, `aemesh jobs end {job}`")
    with progress(f"ending job {found.id}"):
        found.end(term_after=within)
    ui.say(f"job {found.id}: {_state(found.view())}")


@jobs.command()
@click.argument("names", metavar="[JOB...]", nargs=-1)
@state_option
def clean(names: tuple[str, ...], state: str | None) -> None:
    """Forget jobs that have ended, with what they printed: all, or these."""
    folder = JobFolder(state)
    if not names:
        gone = folder.clean()
        ui.say(f"forgot {_count(gone)}")
        return
    found = [folder.find(name) for name in names]
    for job in found:
        if job.view().ended_at is None:
            msg = f"job {job.id} has not ended"
            raise UsageError(msg, hint=f"end it first: `aemesh jobs end {job.id}`")
    for job in found:
        job.remove()
    ui.say(f"forgot {_count(found)}")


@click.command()
@click.argument("job", required=False)
@_tail_option
@state_option
def attach(job: str | None, tail: int | None, state: str | None) -> int:
    """Follow a detached script to its end.

    Shows what JOB, or the newest, has printed and prints; its exit code is ours.
    Ctrl-C leaves it running.
    """
    found = JobFolder(state).find(job)
    try:
        _follow(found, tail)
    except KeyboardInterrupt:
        ui.say(f"\njob {found.id} goes on; `aemesh attach {found.id}` follows it again")
        return _INTERRUPTED
    return found.exit_code()


@click.command()
@click.argument("job", required=False)
@_tail_option
@click.option("-f", "--follow", is_flag=True, help="Go on as it prints, to its end.")
@state_option
def logs(job: str | None, tail: int | None, state: str | None, *, follow: bool) -> None:
    """Show what a detached script printed.

    JOB is a number of `aemesh jobs`; without one, the newest.
    """
    found = JobFolder(state).find(job)
    if follow:
        _follow(found, tail)
    else:
        _Printer(found, tail).print_new()


def shown_age(seconds: float) -> str:
    """Return a span in its largest unit, and what is left of it in the next."""
    whole = int(seconds)
    for unit, smaller in ((86400, 3600), (3600, 60), (60, 1)):
        if whole >= unit:
            first = whole - whole % unit
            rest = whole % unit - whole % unit % smaller
            return shown_span(first) + (f" {shown_span(rest)}" if rest else "")
    return f"{whole}s"


def _follow(job: ClientJob, tail: int | None) -> None:
    if job.view().state == "elsewhere":
        msg = f"job {job.id} runs on {job.record.host}"
        raise UsageError(msg, hint=f"follow it there: `aemesh attach {job.id}`")
    job.wait(_Printer(job, tail).print_new)


class _Printer:
    """Prints the output of a job as the script wrote it: these are its user's bytes."""

    def __init__(self, job: ClientJob, tail: int | None) -> None:
        self._folder = job.folder
        start = output_start(job.folder)
        self._at = start if tail is None else last_lines(job.folder, tail)
        if start and tail is None:
            ui.say(f"(the first {start} bytes are not kept any more)")

    def print_new(self) -> None:
        """Print all that came since the last call."""
        while (piece := read_output(self._folder, self._at)).data:
            if piece.gone:
                ui.say(f"({piece.gone} bytes came too fast to be shown)")
            with ui.writing(sys.stdout):
                sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()
            self._at = piece.end


def _state(view: ClientJobView) -> str:
    return f"failed {view.code}" if view.state == "failed" else view.state


def _count(jobs: Sized) -> str:
    return counted(len(jobs), "job")
