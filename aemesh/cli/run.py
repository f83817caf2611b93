"""``aemesh run``: a script on a group, or on this laptop alone."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.delegation import delegate_options, wish_of
from aemesh.cli.options import state_option
from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from aemesh.model.view import Delegate


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--group", "group_name", metavar="NAME", help="The group to run on.")
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
) -> int:
    """Run a script, alone or on a group.

    SCRIPT is a Python file; it gets ARGS as they are, and its exit code is ours.
    Without --group it has this machine alone, and needs no master.  With --delegate
    the group's members are brought up anew, with your identity until the script ends.
    """
    if not Path(script).is_file():
        msg = f"there is no script {quoted(script)}"
        raise UsageError(msg, why=f"looked in {Path.cwd()}")
    argv = (sys.executable, script, *args)
    if group_name is None:
        if delegate or delegate_from:
            msg = "--delegate needs --group: here a script has your identity anyway"
            raise UsageError(msg)
        return _alone(argv, state)
    if not delegate and not delegate_from:
        return _on_group(group_name, argv, state)
    return _as_you(group_name, wish_of(delegate, delegate_from), argv, state)


def _as_you(
    name: str, wish: Delegate | None, argv: tuple[str, ...], state: str | None
) -> int:
    from aemesh.client.client import Mesh  # noqa: PLC0415 - see `COMMANDS`
    from aemesh.model.view import Delegate  # noqa: PLC0415

    assert wish is not None, "the options asked for it"
    mesh = Mesh(state)
    mesh.delegate(name, replace(wish, lasting=False))
    try:
        return _on_group(name, argv, state)
    finally:
        mesh.delegate(name, Delegate(life_after=0.0, lasting=False))


def _on_group(name: str, argv: tuple[str, ...], state: str | None) -> int:
    from aemesh.client.client import Mesh  # noqa: PLC0415 - see `COMMANDS`
    from aemesh.client.script import run_script  # noqa: PLC0415

    mesh = Mesh(state)
    if ui.can_ask():
        with ui.progress(f"waiting for group {name}"):
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
