"""What the items of ``aemesh map`` came to, as files: a folder for each, and a log."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from aemesh.errors import SettingsError
from aemesh.host.folders import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.client.spread import Ended, Said

_HEADS = (
    *("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive"),
    *("Exitval", "Signal", "Command"),
)
_SIGNALLED = 128


class ItemFolders:
    """A folder with one for each item: its outputs, and its end as JSON.

    An item's folder has its name once all of it is there.
    """

    def __init__(self, folder: Path, *, count: int) -> None:
        self._folder = folder
        self._width = len(str(count))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"folder {folder} cannot be made"
            raise SettingsError(msg, why=error.strerror) from error

    def write(self, ended: Ended) -> None:
        """Write an item's folder, in place of one that is there."""
        name = f"{ended.number + 1:0{self._width}}"
        fresh, place = self._folder / f".{name}.new", self._folder / name
        remove_tree(fresh)
        fresh.mkdir()
        _write(fresh / "stdout", ended.stdout)
        _write(fresh / "stderr", ended.stderr)
        fields = json.dumps(fields_of(ended)) + "\n"
        (fresh / "result.json").write_text(fields)
        remove_tree(place)
        fresh.rename(place)

    def __repr__(self) -> str:
        return f"<ItemFolders in {self._folder}>"


class JobLog:
    """A line for each item that has ended, as GNU parallel's ``--joblog`` has it."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", buffering=1, errors="backslashreplace")
        except OSError as error:
            msg = f"{path} cannot be written"
            raise SettingsError(msg, why=error.strerror) from error
        self._file.write("\t".join(_HEADS) + "\n")

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
        self._file.write("\t".join(fields) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<JobLog {self._file.name}>"


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


def _write(path: Path, said: Said) -> None:
    with path.open("wb") as file:
        for piece in said.pieces():
            file.write(piece)
