"""``aemesh rsh``: a command on a member, for whatever calls ``rsh`` or ``ssh``.

rsync, GNU parallel, git and MPI's launchers know how to use another program for that,
and then give it options of ssh's.  Those that do not matter here are taken and passed
over; those that ask for what we do not do (tunnels, terminals) are no options of ours.
"""

from __future__ import annotations

import os
from typing import Any

import click

from aemesh.cli import ui
from aemesh.cli.failures import ASIDE, failed
from aemesh.cli.options import TypedOption, state_option
from aemesh.client.environment import GROUP_VARIABLE
from aemesh.client.mesh import Mesh
from aemesh.client.remoteshell import run_remote
from aemesh.errors import UsageError

# Of ssh's options: those that say how it connects, or that it is to be quiet.
_FLAGS = "46AaCKkqTtvXxY"
_VALUES = "BbceFIiJmopS"


class _Rsh(click.Command):
    """A command that reads its words as ssh does; those that are wrong are `ASIDE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options before the host, and behind it, too, up to the command."""
        options, rest = _split(args)
        more, words = _split(rest[1:])
        try:
            return super().parse_args(ctx, [*options, *more, "--", *rest[:1], *words])
        except click.UsageError as error:
            text = error.format_message()
            told = UsageError(text[:1].lower() + text[1:].rstrip("."))
            ctx.exit(ui.error(told, code=ASIDE))


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """Return the options in front, and the rest."""
    at = 0
    while at < len(args) and args[at].startswith("-"):
        if args[at] == "--":
            return args[:at], args[at + 1 :]
        at += 2 if _takes_next(args[at]) else 1
    return args[:at], args[at:]


def _takes_next(word: str) -> bool:
    """Whether the next word is this option's value."""
    if word.startswith("--"):
        return word in {"--group", "--state"}
    values = [at for at, name in enumerate(word[1:], 1) if name in f"l{_VALUES}"]
    return bool(values) and values[0] == len(word) - 1


def _passed_over(command: Any) -> Any:  # noqa: ANN401 - a function, or click's of it
    why = "it is there for those who call ssh"
    for name in _FLAGS:
        command = click.option(
            f"-{name}", f"_{ord(name)}", cls=TypedOption, why=why, is_flag=True,
            hidden=True, expose_value=False,
        )(command)  # fmt: skip
    for name in _VALUES:
        command = click.option(
            f"-{name}", f"_{ord(name)}", cls=TypedOption, why=why, multiple=True,
            hidden=True, expose_value=False,
        )(command)  # fmt: skip
    return command


@click.command(cls=_Rsh, context_settings={"allow_interspersed_args": False})
@click.option(
    "--group", "group_name", metavar="NAME", help="The group; else any that has HOST."
)
@click.option(
    "-l",
    "user",
    cls=TypedOption,
    why="it is said to each host",
    metavar="USER",
    help="Refuse unless the worker runs as this user; also `USER@HOST`.",
)
@click.option(
    "-n",
    "no_input",
    cls=TypedOption,
    why="it depends on the command",
    is_flag=True,
    help="Give it an empty standard input, not ours.",
)
@_passed_over
@click.argument("host")
@click.argument("words", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED)
@state_option
def rsh(  # noqa: PLR0913 - the options of the command
    group_name: str | None,
    user: str | None,
    host: str,
    words: tuple[str, ...],
    state: str | None,
    *,
    no_input: bool,
) -> int:
    """Run a command on a member as ssh would.

    HOST is a worker's name, label or address.  COMMAND is joined by spaces and read by
    a shell there, in the home folder of the worker's user; its standard input and
    output are ours, and so is its exit code; 255 is a failure of ours.  Options of ssh
    that say how to connect are passed over.  rsync takes it with -e, GNU
    parallel with --ssh, and git as $GIT_SSH_COMMAND.
    """
    named, at, place = host.rpartition("@")
    if not words:
        hint = f"say a command: `aemesh rsh {place} hostname`; there is no terminal"
        return ui.error(UsageError("what is to run?", hint=hint), code=ASIDE)
    try:
        return run_remote(
            Mesh(state),
            place,
            " ".join(words),
            group=group_name or os.environ.get(GROUP_VARIABLE) or None,
            user=named if at else user,
            takes_input=not no_input,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, callers know one code
        return failed(error, as_json=False, code=ASIDE)
