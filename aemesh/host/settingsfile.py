"""The one file with a user's defaults: where it is, what it says, and in which line.

::

    state = "~/aemesh"          # for every command

    [worker]
    cores = 4                   # as `aemesh worker --cores 4`

What the names mean is the command line's business; here they are TOML.  It is read
only if only we could have written it: a `host` or `trust-master` of somebody else's
would be as good as a shell.  tomllib is loaded only where there is a file.
"""

from __future__ import annotations

import os
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from aemesh import limits
from aemesh.errors import SettingsFileError
from aemesh.host.folders import check_folder, check_owned

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG_VARIABLE = "AEMESH_CONFIG"
_FILE = "config.toml"
# What tomllib says at the end of its sentence.
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


class SettingsFile:
    """What the file says; made by `read_settings`."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text

    @cached_property
    def values(self) -> dict[str, Any]:
        """The file's tables; raises `SettingsFileError` for what is no TOML."""
        if not self.text:
            return {}
        import tomllib  # noqa: PLC0415 - most users have no file

        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            said = str(error) or "it is nested too deeply"
            found = _AT_LINE.search(said)
            line = int(found[1]) if found else len(self.text.splitlines())
            why = _AT_LINE.sub("", said)
            raise self._error(line, "this is no TOML", why=why) from None

    def line_of(self, keys: tuple[str, ...]) -> int:
        """Return the line in which a setting that is there begins."""
        return self._lines[keys]

    def error(
        self,
        keys: tuple[str, ...],
        what: str,
        *,
        why: str | None = None,
        hint: str | None = None,
    ) -> SettingsFileError:
        """Return what is wrong with one setting of this file."""
        return self._error(self.line_of(keys), what, why=why, hint=hint)

    def _error(
        self, line: int, what: str, *, why: str | None = None, hint: str | None = None
    ) -> SettingsFileError:
        return SettingsFileError(f"{self.path}:{line}: {what}", why=why, hint=hint)

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """The line of each name, found one statement after the other.

        tomllib keeps no lines, but reads any statement by itself; one that it cannot
        read goes on in the next line, for the whole file has been read before.
        """
        import tomllib  # noqa: PLC0415

        found: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        statement, begins = "", 1
        for number, line in enumerate(self.text.split("\n"), 1):
            statement += line + "\n"
            try:
                names = list(_names(tomllib.loads(statement)))
            except tomllib.TOMLDecodeError:
                continue
            is_head = bool(names) and statement.lstrip().startswith("[")
            above = () if is_head else table
            for name in names:
                found.setdefault(above + name, begins)
            if is_head:
                table = names[-1]
            statement, begins = "", number + 1
        return found


def _names(values: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the name of each table and value, the outer ones first."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            for inner in _names(value):
                yield (key, *inner)


def settings_path() -> Path:
    """Return $AEMESH_CONFIG, else the file at the platform's place."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    return platformdirs.user_config_path("aemesh", appauthor=False) / _FILE


def read_settings() -> SettingsFile:
    """Return the user's settings, empty ones if there is no file.

    Raises `SettingsFileError` for a file that others could have written.
    """
    path = settings_path()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return SettingsFile(path, "")
    except OSError as error:
        msg = f"{path} cannot be read"
        raise SettingsFileError(msg, why=error.strerror) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):  # /dev/null, to have none
            return SettingsFile(path, "")
        check_folder(path.parent, error=SettingsFileError)
        check_owned(path, status, error=SettingsFileError)
        data = file.read(limits.SETTINGS_FILE_BYTES + 1)
    if len(data) > limits.SETTINGS_FILE_BYTES:
        msg = f"{path} is too long"
        why = f"at most {limits.SETTINGS_FILE_BYTES} bytes are read"
        raise SettingsFileError(msg, why=why)
    try:
        return SettingsFile(path, data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"{path}:{line}: this is no UTF-8"
        raise SettingsFileError(msg) from None


def default_state() -> str | None:
    """Return what the file says of ``state``, or None."""
    file = read_settings()
    state = file.values.get("state")
    if state is None or isinstance(state, str):
        return state or None
    raise file.error(("state",), "state is not a text", why=f"it is {state!r}")
