"""``aemesh run``: a script on a group, or on this laptop alone."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh import limits
from aemesh.cli import ui
from aemesh.cli.delegation import delegate_options, wish_of
from aemesh.cli.failures import failed
from aemesh.cli.options import state_option
from aemesh.cli.progress import progress
from aemesh.errors import UnknownNameError, UsageError, quoted

if TYPE_CHECKING:
    from aemesh.model.view import Delegate


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--group", "group_name", metavar="NAME", help="The group to run on.")
@click.option(
    "--detach", is_flag=True, help="Without this terminal; `aemesh attach` follows."
)
@delegate_options
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@state_option
def run(  # noqa: PLR0913, PLR0917 - the options of the command
    group_name: str | None,
    delegate: str | None,
    delegate_from: str | None,
    script: str,
    args: tuple[str, ...],
    state: str | None,
    *,
    detach: bool,
) -> int:
    """Run a script, alone or on a group.

    SCRIPT is a Python file; it gets ARGS as they are, and its exit code is ours.
    Without --group it has this machine alone, and needs no master.  With --delegate
    the group's members are brought up anew, with your identity until the script ends.
    With --detach a number is printed at once, and the script goes on when you log out.
    """
    if not Path(script).is_file():
        msg = f"there is no script {quoted(script)}"
        raise UsageError(msg, why=f"looked in {Path.cwd()}")
    argv = (sys.executable, script, *args)
    if not group_name and (delegate or delegate_from):
        msg = "--delegate needs --group: here a script has your identity anyway"
        raise UsageError(msg)
    # A passphrase is asked for here, where there still is a terminal.
    wish = wish_of(delegate, delegate_from)
    if detach:
        return _detached(group_name or None, wish, argv, state)
    if not group_name:
        return _alone(argv, state)
    return _with_group(group_name, wish, argv, state)


def _with_group(
    name: str, wish: Delegate | None, argv: tuple[str, ...], state: str | None
) -> int:
    if wish is None:
        return _on_group(name, argv, state)
    return _as_you(name, wish, argv, state)


def _detached(
    name: str | None, wish: Delegate | None, argv: tuple[str, ...], state: str | None
) -> int:
    from aemesh.client.detach import start_detached  # noqa: PLC0415 - see `COMMANDS`
    from aemesh.client.jobs import JobFolder  # noqa: PLC0415

    if name is not None:
        _check_group(name, state)
    folder = JobFolder(state)
    folder.clean(keep=limits.JOBS_KEPT)

    def main() -> int:
        try:
            if name is None:
                return _run_laptop(argv, state)
            return _with_group(name, wish, argv, state)
        except BaseException as error:  # noqa: BLE001 - its output is the place for it
            return failed(error, as_json=False)

    job = folder.new()
    _, script, *args = argv
    start_detached(job, main, script=script, args=args, group=name)
    ui.write(job.name)
    ui.say(f"`aemesh attach {job.name}` follows {script}, Ctrl-C leaves it running")
    return 0


def _check_group(name: str, state: str | None) -> None:
    """Tell here what cannot become anything: no master, no such group."""
    from aemesh.client.mesh import Mesh  # noqa: PLC0415 - see `COMMANDS`

    known = [group.name for group in Mesh(state).groups()]
    if name not in known:
        kind = "group"
        raise UnknownNameError(kind, name, known)


def _as_you(name: str, wish: Delegate, argv: tuple[str, ...], state: str | None) -> int:
    from aemesh.client.mesh import Mesh  # noqa: PLC0415 - see `COMMANDS`
    from aemesh.model.view import Delegate  # noqa: PLC0415

    mesh = Mesh(state)
    mesh.delegate(name, replace(wish, lasting=False))
    try:
        return _on_group(name, argv, state)
    finally:
        mesh.delegate(name, Delegate(life_after=0.0, lasting=False))


def _on_group(name: str, argv: tuple[str, ...], state: str | None) -> int:
    from aemesh.client.mesh import Mesh  # noqa: PLC0415 - see `COMMANDS`
    from aemesh.client.script import run_script  # noqa: PLC0415

    mesh = Mesh(state)
    if ui.can_ask():
        with progress(f"waiting for group {name}"):
            group = mesh.group(name)
    else:
        group = mesh.group(name)
    with group:
        return run_script(argv, {**os.environ, **group.environment()})


def _alone(argv: tuple[str, ...], state: str | None) -> int:
    # The warden forks before anything else is loaded; see `aemesh.host.warden`.
    from aemesh.host.warden import run_guarded  # noqa: PLC0415

    return run_guarded(partial(_run_laptop, argv, state))


def _run_laptop(argv: tuple[str, ...], state: str | None) -> int:
    from aemesh.client.laptop import run_laptop  # noqa: PLC0415

    return run_laptop(argv, state=state)
