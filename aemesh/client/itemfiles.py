"""What the items of ``aemesh map`` came to, as files: a folder for each, and a log."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aemesh.errors import SettingsError
from aemesh.host.folders import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from aemesh.client.ended import Ended, Said

_HEADS = (
    *("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive"),
    *("Exitval", "Signal", "Command"),
)
_SIGNALLED = 128
_ITEM = re.compile(r"[0-9]+")


class ItemFolders:
    """A folder with one for each item: its outputs, and its end as JSON.

    An item's folder has its name once all of it is there, and takes the place of the
    former one of this number, which may have had more or fewer zeros in front.
    """

    def __init__(self, folder: Path, *, count: int) -> None:
        """Make the folder; raises `SettingsError` if items cannot be written there."""
        self._folder = folder
        self._width = len(str(count))
        self._former: defaultdict[int, list[Path]] = defaultdict(list)
        with _written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".new"
            remove_tree(probe)
            probe.mkdir()
            probe.rmdir()
        for place in folder.iterdir():
            if _ITEM.fullmatch(place.name):
                self._meet(place, int(place.name), count)

    def write(self, ended: Ended) -> None:
        """Write an item's folder, in place of one that is there.

        Raises `SettingsError`.
        """
        number = ended.number + 1
        name = self._name(number)
        fresh, place = self._folder / f".{name}.new", self._folder / name
        with _written(place):
            remove_tree(fresh)
            fresh.mkdir()
            _write(fresh / "stdout", ended.stdout)
            _write(fresh / "stderr", ended.stderr)
            fields = json.dumps(fields_of(ended)) + "\n"
            (fresh / "result.json").write_text(fields)
            remove_tree(place)
            fresh.rename(place)
        for former in self._former.pop(number, ()):
            remove_tree(former)

    def _name(self, number: int) -> str:
        return f"{number:0{self._width}}"

    def _meet(self, place: Path, number: int, count: int) -> None:
        """Take note of what has an item's name."""
        ours = place.name == self._name(number) and 1 <= number <= count
        if ours and not place.is_dir():
            msg = f"{place} is in the way of an item"
            raise SettingsError(msg, why="it is no folder")
        if not ours and (place / "result.json").is_file():
            self._former[number].append(place)

    def __repr__(self) -> str:
        return f"<ItemFolders in {self._folder}>"


class JobLog:
    """A line for each item that has ended, as GNU parallel's ``--joblog`` has it."""

    def __init__(self, path: Path) -> None:
        """Begin the file; this and all else raises `SettingsError` if it cannot be."""
        self._path = path
        with _written(path):
            self._file = path.open("w", buffering=1, errors="backslashreplace")
        try:
            self._add(_HEADS)
        except SettingsError:
            with suppress(SettingsError):  # it is not taken now, either
                self.close()
            raise

    def write(self, ended: Ended) -> None:
        """Add a line."""
        code = ended.code
        signal = code - _SIGNALLED if code > _SIGNALLED else 0
        fields = (
            str(ended.number + 1),
            ended.worker,
            f"{ended.began_at:.3f}",
            f"{ended.took_after:10.3f}",
            "0",
            str(ended.stdout.size),
            str(code),
            str(signal),
            # A tab or a line end in an argument would be another field or line.
            shlex.join(ended.argv).replace("\t", "\\t").replace("\n", "\\n"),
        )
        self._add(fields)

    def _add(self, fields: Iterable[str]) -> None:
        with _written(self._path):
            self._file.write("\t".join(fields) + "\n")

    def close(self) -> None:
        """Close the file."""
        with _written(self._path):
            self._file.close()

    def __repr__(self) -> str:
        return f"<JobLog {self._path}>"


def fields_of(ended: Ended) -> dict[str, object]:
    """Return how an item ended, without what it wrote."""
    return {
        "item": ended.number + 1,
        "argv": list(ended.argv),
        "worker": ended.worker,
        "code": ended.code,
        "reason": ended.reason,
        "tries": ended.tries,
        "kept": ended.kept,
        "began_at": ended.began_at,
        "took_after": ended.took_after,
    }


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Name the path that cannot be written."""
    try:
        yield
    except OSError as error:
        msg = f"{path} cannot be written"
        raise SettingsError(msg, why=error.strerror) from error


def _write(path: Path, said: Said) -> None:
    with path.open("wb") as file:
        for piece in said.pieces():
            file.write(piece)
