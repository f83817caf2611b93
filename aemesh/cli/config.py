"""``aemesh config``: the user's defaults, and where each comes from.

A setting is named by its command and its option: ``worker.cores``.  tomlkit writes the
file, for it keeps a person's comments.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from aemesh.cli import ui
from aemesh.cli.defaults import (
    ValueRefusedError,
    checked,
    command_at,
    read_table,
    settings_of,
    variable_of,
)
from aemesh.cli.options import TypedOption, json_option
from aemesh.errors import UnknownNameError, UsageError, quoted
from aemesh.host.folders import make_private
from aemesh.host.settingsfile import read_settings, settings_path
from aemesh.host.statedir import state_root
from aemesh.host.wholefile import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tomlkit

    from aemesh.cli.defaults import Path
    from aemesh.host.settingsfile import SettingsFile

_SECRET = "set"  # noqa: S105 - what is shown of one
_FROM = click.core.ParameterSource


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as it is now."""

    name: str
    value: Any  # what TOML has; None: there is no default
    source: str  # FILE:LINE, $VARIABLE or "default"


@click.group(invoke_without_command=True)
@click.option("--changed", is_flag=True, help="Only what a file or a variable sets.")
@json_option
@click.pass_context
def config(ctx: click.Context, /, *, changed: bool, as_json: bool) -> None:
    """Show and change your defaults.

    Each setting with its value and where that comes from.  What is typed goes before
    a variable, that before the file, and that before our default.
    """
    if ctx.invoked_subcommand is not None:
        return
    file = read_settings()
    rows = [
        row
        for row in all_rows(_root(ctx), file)
        if not changed or row.source != "default"
    ]
    if as_json:
        for row in rows:
            ui.write_json(
                {"setting": row.name, "value": row.value, "source": row.source}
            )
        return
    if not file.text:
        ui.say(f"there is no file {file.path} yet")
    ui.table(
        ("SETTING", "VALUE", "FROM"),
        ((row.name, _shown(row.value), row.source) for row in rows),
    )


@config.command("path")
def path_() -> None:
    """Print where the file is, or would be."""
    ui.write(str(settings_path()))


@config.command("set")
@click.argument("name")
@click.argument("words", metavar="VALUE...", nargs=-1, required=True)
@click.pass_context
def set_(ctx: click.Context, name: str, words: tuple[str, ...]) -> None:
    """Set NAME, as worker.cores, to VALUE in the file.

    Several values are for what may be given several times, as worker.group.
    """
    keys = tuple(name.split("."))
    option = _option(_root(ctx), keys)
    value = _typed(option, words)
    try:
        checked(option, value)
    except ValueRefusedError as error:
        msg = f"{name} cannot be {quoted(' '.join(words))}"
        raise UsageError(msg, why=str(error)) from None

    def change(document: tomlkit.TOMLDocument) -> None:
        table: Any = document
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = value

    _change(change)
    ui.say(f"{name} is {_shown(value)} in {settings_path()}")
    variable = variable_of(keys)
    if os.environ.get(variable):
        ui.warn(f"${variable} is set too, and goes before it")


@config.command()
@click.argument("name")
def unset(name: str) -> None:
    """Take NAME out of the file."""
    *above, last = name.split(".")

    def change(document: tomlkit.TOMLDocument) -> None:
        table: Any = document
        for key in above:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or last not in table:
            kind = "setting"
            raise UnknownNameError(kind, name, _names(document))
        del table[last]

    _change(change)
    ui.say(f"{name} is no longer in {settings_path()}")


@config.command()
@click.pass_context
def edit(ctx: click.Context) -> None:
    """Open the file in your editor, and check it then."""
    path = settings_path()
    make_private(path.parent)
    click.edit(filename=str(path))
    if path.exists():
        check_all(_root(ctx), read_settings())


def all_rows(root: click.Group, file: SettingsFile) -> Iterator[Row]:
    """Yield each setting of each command; raises for what is wrong in the file."""
    check_all(root, file)
    top = click.Context(root, info_name="aemesh", resilient_parsing=True)
    for path, command in walk(root):
        read = read_table(file, root, path)
        # click finds the values: what is shown is what a command would get.
        context = command.make_context(
            path[-1] if path else "aemesh",
            [],
            parent=top if path else None,
            resilient_parsing=True,
            default_map=read,
        )
        for name, option in settings_of(command).items():
            yield _row(file, (*path, name), option, context)
        yield from _secrets(path, command)


def check_all(root: click.Group, file: SettingsFile) -> None:
    """Raise `SettingsFileError` for the first thing that is wrong in the file."""
    for path, _ in walk(root):
        read_table(file, root, path)


def walk(root: click.Group) -> Iterator[tuple[Path, click.Command]]:
    """Yield every command below `root`, and `root`, with its path."""
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop(0)
        command = command_at(root, path)
        assert command is not None
        yield path, command
        if isinstance(command, click.Group):
            names = command.list_commands(click.Context(command))
            waiting[:0] = [(*path, name) for name in names]


def _row(
    file: SettingsFile, keys: Path, option: click.Option, context: click.Context
) -> Row:
    assert option.name is not None
    source = context.get_parameter_source(option.name)
    name = ".".join(keys)
    if source is _FROM.ENVIRONMENT:
        variable = variable_of(keys)
        return Row(name, os.environ[variable], f"${variable}")
    if source is _FROM.DEFAULT_MAP:
        value = _in_file(file, keys)
        return Row(name, value, f"{file.path}:{file.line_of(keys)}")
    if keys == ("state",):
        return Row(name, str(state_root()), "default")
    value = context.params.get(option.name)
    if value is not None and not isinstance(value, (bool, int, tuple)):
        value = str(option.get_default(context) or value)  # 1h, as typed, not 3600.0
    return Row(name, value, "default")


def _secrets(path: Path, command: click.Command) -> Iterator[Row]:
    for option in command.params:
        if isinstance(option, TypedOption) and option.secret:
            name = ".".join((*path, str(option.name)))
            there = bool(os.environ.get(str(option.envvar)))
            source = f"${option.envvar}" if there else "default"
            yield Row(name, _SECRET if there else None, source)


def _in_file(file: SettingsFile, keys: Path) -> Any:  # noqa: ANN401 - what TOML has
    value: Any = file.values
    for key in keys:
        value = value[key]
    return value


def _shown(value: Any) -> str:  # noqa: ANN401 - what TOML has
    if value is None or value in ((), []):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value)


def _root(ctx: click.Context) -> click.Group:
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    return root


def _option(root: click.Group, keys: Path) -> click.Option:
    """Return the option that a setting is of, or say what there is."""
    command = command_at(root, keys[:-1])
    known = {} if command is None else settings_of(command)
    if keys[-1] in known:
        return known[keys[-1]]
    for option in () if command is None else command.params:
        if isinstance(option, TypedOption) and f"--{keys[-1]}" in option.opts:
            msg = f"{'.'.join(keys)} cannot be set"
            raise UsageError(msg, why=option.why)
    there = [".".join((*keys[:-1], name)) for name in known]
    if command is None or not there:
        hint = "`aemesh config` lists what there is"
        msg = f"there is no setting {quoted('.'.join(keys))}"
        raise UsageError(msg, hint=hint)
    kind = "setting"
    raise UnknownNameError(kind, ".".join(keys), there)


def _typed(option: click.Option, words: tuple[str, ...]) -> Any:  # noqa: ANN401 - for TOML
    """Return words as the kind of value that TOML is to have; wrong ones stay texts."""
    values: list[Any] = [_word(option, word) for word in words]
    if option.multiple:
        return values
    if len(values) > 1:
        msg = f"--{option.opts[0].lstrip('-')} takes one value, not {len(values)}"
        raise UsageError(msg)
    return values[0]


def _word(option: click.Option, word: str) -> str | bool | int:
    if option.is_flag:
        return {"true": True, "false": False}.get(word, word)
    if isinstance(option.type, type(click.INT)) and word.lstrip("-").isdigit():
        return int(word)
    return word


def _change(change: Callable[[tomlkit.TOMLDocument], None]) -> None:
    """Let `change` have the file's document, and write it whole."""
    import tomlkit  # noqa: PLC0415 - 10 ms, for those alone who change something

    file = read_settings()
    _ = file.values  # what is no TOML is told with its line
    document = tomlkit.parse(file.text)
    change(document)
    make_private(file.path.parent)
    # Where people keep such files in a repository, the name is a link to it.
    write_whole(file.path.resolve(), tomlkit.dumps(document).encode())


def _names(table: Any, above: str = "") -> list[str]:  # noqa: ANN401 - tomlkit's
    found: list[str] = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _names(value, f"{above}{key}.")
        else:
            found.append(f"{above}{key}")
    return found
