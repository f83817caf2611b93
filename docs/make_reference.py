# ruff: noqa: INP001 - a script, not a package
"""Writes the pages of docs/reference that are made from code; --check only compares.

python docs/make_reference.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from aemesh import errors
from aemesh.cli.config import walk
from aemesh.cli.defaults import settings_of, variable_of
from aemesh.cli.main import COMMANDS, cli
from aemesh.cli.options import TypedOption
from aemesh.errors import AemeshError

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/make_reference.py; edit the code instead. -->"
WIDTH = 80

EXIT_CODES = {
    0: "done",
    1: "a bug of ours; the traceback is worth a report",
    2: "the command line cannot be understood",
    3: "a setting, a file or a name is wrong",
    4: "refused by trust",
    5: "nobody found",
    6: "unreachable, or too slow",
    7: "the group is incomplete",
    8: "the engine failed",
    130: "interrupted",
    141: "whoever read the output has gone",
    255: "any error of `aemesh map` or `aemesh rsh`: the others are the commands'",
}


def errors_page() -> str:
    """Return errors.md: a row for each class, in the order of the source."""
    lines = [
        "# Errors",
        "",
        NOTE,
        "",
        "Every error has a stable name, which `--json` prints as `error`,",
        "and the exit code of the command that it ends.",
        "",
        "| exit code | means |",
        "| --- | --- |",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
        "| name | exit code | class | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for kind in error_classes():
        meaning = (kind.__doc__ or "").splitlines()[0]
        name = f"`{kind.name}` | {kind.exit_code} | `{kind.__name__}`"
        lines.append(f"| {name} | {meaning} |")
    return "\n".join([*lines, ""])


def error_classes() -> list[type[AemeshError]]:
    """Return every class of error, in the order of the source."""
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AemeshError)
    ]


def cli_page() -> str:
    """Return cli.md: the help of each command that is there."""
    lines = ["# The command line", "", NOTE, ""]
    lines += _help(cli, "aemesh", None)
    context = click.Context(cli, info_name="aemesh")
    for name in COMMANDS:
        try:
            command = cli.get_command(context, name)
        except ModuleNotFoundError as error:
            sys.stderr.write(f"left out: aemesh {name} ({error})\n")
            continue
        assert command is not None
        lines += _help(command, name, context)
    return "\n".join(lines)


def _help(command: click.Command, name: str, parent: click.Context | None) -> list[str]:
    """Return the help of a command and of those within it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH
    )
    context.max_content_width = WIDTH
    level = "#" if parent is None else "##"
    text = command.get_help(context)
    lines = [f"{level}# `{context.command_path}`", "", "```text", text, "```", ""]
    if isinstance(command, click.Group) and parent is not None:
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            lines += _help(found, inner, context)
    return lines


SETTINGS = """
A user's defaults are in one TOML file: `aemesh config path` prints where.
`$AEMESH_CONFIG` names another one; with `/dev/null` there is none.
What is typed goes before a variable, that before the file, and that before our default.
`aemesh config` shows every setting, its value, and the line or variable it comes from.

```toml
state = "~/aemesh"     # above all tables: for every command

[worker]
cores = 4
group = ["analysisA"]  # what may be given several times is a list

[trust.token]
for = "2h"
```

A table is a command, a name in it an option without its dashes.
A variable is `AEMESH`, the command and the option; several values have spaces between.
One that is empty counts as none.
An unknown name and a wrong value are errors with their line.
Every command checks its own table and the names of all, `aemesh config` all of it.
A file that others can write is refused.

These are never defaults:
"""


def settings_page() -> str:
    """Return settings.md: each option that can be set, and those that cannot."""
    lines = ["# Settings", "", NOTE, *SETTINGS.splitlines(), ""]
    commands = list(walk(cli))
    reasons: dict[str, set[str]] = {}
    for _, command in commands:
        for option in command.params:
            if isinstance(option, TypedOption):
                reasons.setdefault(option.why, set()).add(max(option.opts, key=len))
    for why, names in reasons.items():
        shown = ", ".join(f"`{name}`" for name in sorted(names))
        lines.append(f"- {shown}: {why}")
    for path, command in commands:
        rows = settings_of(command)
        if not rows:
            continue
        head = f"`[{'.'.join(path)}]`" if path else "For every command"
        lines += [
            "",
            f"## {head}",
            "",
            "| name | variable | what |",
            "| --- | --- | --- |",
        ]
        for name, option in rows.items():
            text = (option.help or "").replace("|", "\\|")
            lines.append(f"| `{name}` | `{variable_of((*path, name))}` | {text} |")
    return "\n".join([*lines, ""])


PAGES = {"errors.md": errors_page, "cli.md": cli_page, "settings.md": settings_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if arguments != ["--check"]:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    verb = "stale" if arguments == ["--check"] else "written"
    said = [f"{verb}: {name}" for name in stale] or ["fresh"]
    sys.stdout.write("\n".join([*said, ""]))
    return int(bool(stale) and arguments == ["--check"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
