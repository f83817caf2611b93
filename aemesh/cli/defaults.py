"""Where options that are not typed come from: a user's file, then the environment.

click does it, with what every option has anyway: a variable (`envvar`), made of its
command and its name, and the `default_map` of its context, which is the file's table
of that command.  So ``aemesh worker --cores 4`` is ``AEMESH_WORKER_CORES=4`` and
``[worker] cores = 4``, and there is no second list of what can be set.

The file is read when the first option asks for its default, which is after ``--help``
has been answered.  Only the tables on the way to the command are checked then;
``aemesh config`` checks all.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from aemesh.cli.options import TypedOption
from aemesh.errors import AemeshError, SettingsFileError

if TYPE_CHECKING:
    from aemesh.host.settingsfile import SettingsFile

Path = tuple[str, ...]


class ValueRefusedError(Exception):
    """A value is not what its option takes; the text says what that is."""


def bind(command: click.Command, path: Path) -> None:
    """Give every option of a command, and of those in it, its variable."""
    for name, option in settings_of(command).items():
        option.envvar = variable_of((*path, name))
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            bind(inner, (*path, name))


def variable_of(keys: Path) -> str:
    """Return the environment variable of a setting."""
    return "_".join(("aemesh", *keys)).upper().replace("-", "_")


def name_of(option: click.Option) -> str:
    """Return an option's name as it is typed, without its dashes."""
    return max(option.opts, key=len).lstrip("-")


def settings_of(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that can be set, by name."""
    return {
        name_of(option): option
        for option in command.params
        if isinstance(option, click.Option)
        and not isinstance(option, TypedOption)
        and not option.is_eager  # --version
    }


class Section(Mapping[str, Any]):
    """The table of one command, by the names of its parameters, as click asks."""

    def __init__(
        self, root: click.Group, path: Path, file: SettingsFile | None = None
    ) -> None:
        self._root = root
        self._path = path
        self._file = file
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - what TOML has
        command = command_at(self._root, self._path)
        if isinstance(command, click.Group) and name in command.commands:
            return Section(self._root, (*self._path, name), self._file)
        if self._values is None:
            self._values = self._read()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        if self._values is None:
            self._values = self._read()
        return iter(self._values)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self) -> dict[str, Any]:
        # Not above: `aemesh --help` is not to pay for it.
        from aemesh.host.settingsfile import read_settings  # noqa: PLC0415

        context = click.get_current_context(silent=True)
        try:
            file = read_settings() if self._file is None else self._file
            return read_table(file, self._root, self._path)
        except SettingsFileError:
            # Help shows defaults too, and is wanted most when the file is wrong.
            if context is not None and context.resilient_parsing:
                return {}
            raise


def command_at(root: click.Group, path: Path) -> click.Command | None:
    """Return the command of these words, None if there is none."""
    command: click.Command | None = root
    for name in path:
        if not isinstance(command, click.Group):
            return None
        command = command.get_command(click.Context(command), name)
    return command


def read_table(file: SettingsFile, root: click.Group, path: Path) -> dict[str, Any]:
    """Return what the file says for one command, by parameter.

    Raises `SettingsFileError` for a name or value there, or a name on the way to it.
    """
    table: Any = file.values
    command: click.Command | None = root
    _check_names(file, (), table, root)
    for depth, name in enumerate(path, 1):
        at = path[:depth]
        table = table.get(name, {})
        if not isinstance(table, dict):
            what = f"{name} is no table"
            raise file.error(at, what, why=f"expected [{'.'.join(at)}]")
        command = command_at(root, at)
        assert command is not None, "click has found it"
        _check_names(file, at, table, command)
    assert command is not None
    known = settings_of(command)
    return {
        known[name].name or name: _value(file, (*path, name), known[name], value)
        for name, value in table.items()
        if name in known
    }


def _check_names(
    file: SettingsFile, at: Path, table: dict[str, Any], command: click.Command
) -> None:
    known = list(settings_of(command))
    if isinstance(command, click.Group):
        known += command.list_commands(click.Context(command))
    for name in table:
        if name not in known:
            raise _unknown(file, (*at, name), known, command)


def _unknown(
    file: SettingsFile, keys: Path, known: list[str], command: click.Command
) -> SettingsFileError:
    *above, name = keys
    shown = ".".join(keys)
    for option in command.params:
        if isinstance(option, TypedOption) and name_of(option) == name:
            return file.error(keys, f"{shown} cannot be set", why=option.why)
    place = f"known in [{'.'.join(above)}]" if above else "known above all tables"
    near = difflib.get_close_matches(name, known, n=1)
    return file.error(
        keys,
        f"unknown setting {shown}",
        why=f"{place}: {', '.join(known) or 'nothing'}",
        hint=f"did you mean {near[0]}?" if near else None,
    )


def _value(
    file: SettingsFile,
    keys: Path,
    option: click.Option,
    value: Any,  # noqa: ANN401 - what TOML has
) -> Any:  # noqa: ANN401
    try:
        return checked(option, value)
    except ValueRefusedError as error:
        raise file.error(keys, f"{'.'.join(keys)} is wrong", why=str(error)) from None


def checked(option: click.Option, value: Any) -> Any:  # noqa: ANN401 - what TOML has
    """Return a value as click takes it for an option, or raise `ValueRefusedError`.

    ``~`` at the beginning of a text is the home folder, as in a shell.
    """
    several = option.multiple and isinstance(value, list)
    given = [_scalar(option, one) for one in (value if several else [value])]
    shaped = given if option.multiple else given[0]
    context = click.Context(click.Command(option.name))
    try:
        option.process_value(context, shaped)
    except click.BadParameter as error:
        text = " ".join(error.message.split()).rstrip(".")
        raise ValueRefusedError(text[:1].lower() + text[1:]) from None
    except AemeshError as error:
        raise ValueRefusedError(str(error)) from None
    return shaped


def _scalar(option: click.Option, value: Any) -> Any:  # noqa: ANN401 - what TOML has
    kind: type[bool | int | str] = str
    expected = "a text in quotes"
    if option.is_flag:
        kind, expected = bool, "true or false"
    elif isinstance(option.type, type(click.INT)):
        kind, expected = int, "a whole number"
    if type(value) is not kind:
        if option.multiple:
            expected = f"a list, each {expected}"
        shown = repr(value)[:80]
        msg = f"expected {expected}, got {shown}"
        raise ValueRefusedError(msg)
    if isinstance(value, str) and value.startswith("~"):
        return os.path.expanduser(value)
    return value
