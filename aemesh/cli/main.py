"""The command ``aemesh``: finds each command by name when it is called.

The table below is all that ``aemesh --help`` reads, so that no command pays for
the imports of another; a test holds it equal to what the commands say themselves.
Exit codes are those of `aemesh.errors`, but for commands that tell by theirs what
came of what they ran; 130 is Ctrl-C.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from aemesh.cli import ui
from aemesh.cli.defaults import Section, bind
from aemesh.cli.failures import ASIDE, INTERRUPTED, failed
from aemesh.errors import UsageError

# Name: (module, the command in it, one line of help), in the order of the help.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "worker": ("aemesh.cli.worker", "worker", "Offer this machine to a master."),
    "master": ("aemesh.cli.master", "master", "Find workers and form groups of them."),
    "run": ("aemesh.cli.run", "run", "Run a script, alone or on a group."),
    "jobs": ("aemesh.cli.jobs", "jobs", "List and end scripts that run detached."),
    "attach": ("aemesh.cli.jobs", "attach", "Follow a detached script to its end."),
    "logs": ("aemesh.cli.jobs", "logs", "Show what a detached script printed."),
    "status": ("aemesh.cli.status", "status", "Show the master, its groups, workers."),
    "workers": ("aemesh.cli.workers", "workers", "List the workers, or see to some."),
    "group": ("aemesh.cli.group", "group", "List, change and fill groups."),
    "exec": ("aemesh.cli.exec", "exec_", "Run a command on each member of a group."),
    "mpirun": ("aemesh.cli.mpirun", "mpirun", "Run an MPI program on a group."),
    "rsh": ("aemesh.cli.rsh", "rsh", "Run a command on a member as ssh would."),
    "runs": ("aemesh.cli.runs", "runs", "List and remove what durable runs have kept."),
    "map": (
        "aemesh.cli.map",
        "map_",
        "Run a command for each argument, spread over a group.",
    ),
    "commit": (
        "aemesh.cli.checkpoint",
        "commit",
        "Keep the folder $AEMESH_CHECKPOINT as the state of this item.",
    ),
    "resume": (
        "aemesh.cli.checkpoint",
        "resume",
        "Fill the folder $AEMESH_CHECKPOINT as it was at the last `aemesh commit`.",
    ),
    "events": ("aemesh.cli.status", "events", "Tell what happened, and what happens."),
    "trust": ("aemesh.cli.trust", "trust", "See and decide who is trusted."),
    "key": ("aemesh.cli.key", "key", "Show our keys, and have them certified."),
    "ca": (
        "aemesh.cli.ca",
        "ca",
        "Sign a site's workers and masters, or revoke.",
    ),
    "config": ("aemesh.cli.config", "config", "Show and change your defaults."),
    "leave": (
        "aemesh.cli.leave",
        "leave",
        "Have the worker of this machine leave, and say what came of it.",
    ),
    "stop": ("aemesh.cli.stop", "stop", "Stop the master."),
}

# Their exit codes count what failed of what they ran.
_COUNTING = frozenset({"map"})


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import the command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        bind(found, (cmd_name,))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of these words, and where its options get defaults."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            ctx.default_map = {name: Section(self, (name,))}
            if name in _COUNTING and isinstance(ctx.obj, dict):
                ctx.obj["code"] = ASIDE
        return name, command, rest

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aemesh", message="%(prog)s %(version)s")
@click.option(
    "--state",
    metavar="DIR",
    envvar="AEMESH_STATE",
    help="Folder of keys, trust and run-time files (or $AEMESH_STATE).",
)
def cli(state: str | None) -> None:
    """Turn idle machines into a trusted mesh that runs one analysis.

    Start `aemesh worker` on each machine and `aemesh master --group NAME` on one;
    then `aemesh run --group NAME script.py`.
    """


def run(args: list[str]) -> int:
    """Run one command line and return its exit code; errors have been printed."""
    # Words that cannot be read may be told before --json has been.
    as_json = "--json" in args[: args.index("--") if "--" in args else None]
    said: dict[str, Any] = {"as_json": as_json, "code": None}
    try:
        code = cli.main(args, prog_name="aemesh", standalone_mode=False, obj=said)
    except click.exceptions.NoArgsIsHelpError as error:
        ui.tell(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        return ui.error(_in_our_words(error), **said)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - the last one that can say it
        return failed(error, **said)
    return code if isinstance(code, int) else 0


def _in_our_words(error: click.ClickException) -> UsageError:
    """Return click's complaint in our form: one line, lower case, no period, a hint."""
    what = " ".join(error.format_message().split()).rstrip(".")
    what = what[:1].lower() + what[1:]
    if isinstance(error, click.BadParameter):
        what = _blame_variable(what, error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "aemesh"
    return UsageError(what, hint=f"`{path} --help` lists what there is")


def _blame_variable(what: str, error: click.BadParameter) -> str:
    """Name the variable that a wrong value came from: nobody typed it here."""
    option, context = error.param, error.ctx
    if not isinstance(option, click.Option) or context is None:
        return what
    source = context.get_parameter_source(str(option.name))
    if source is not click.core.ParameterSource.ENVIRONMENT:
        return what
    typed = f"'{option.opts[0]}'"
    return what.replace(typed, f"{typed} (from ${option.envvar})", 1)
