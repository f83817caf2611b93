"""What cluster objects changed of a group, and which of them gives it back: the last.

Several may use one group, also in several processes of this machine.  Each has a folder
as long as it lives, and beside them is a file with what the group was before the first.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from aemesh.host.folders import make_private
from aemesh.host.livefolder import LiveFolder, live_folders
from aemesh.host.wholefile import locked, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aemesh.model.group import DemandChange


class Before(msgspec.Struct):
    """What a group was: not there, or with other wishes, of which these are changed."""

    is_new: bool
    wishes: dict[str, Any] = {}

    def add(self, wishes: Mapping[str, Any]) -> None:
        """Note more of them; what is noted already was so before."""
        for name, value in wishes.items():
            if isinstance(value, dict):
                self.wishes[name] = value | self.wishes.get(name, {})
            else:
                self.wishes.setdefault(name, value)


class Borrowing:
    """One cluster object's use of a group; all of it but `turn` within a `turn`."""

    def __init__(self, parent: Path, group: str) -> None:
        self._parent = parent
        self._folder = parent / group
        self._file = self._folder / "before.json"
        self._place: LiveFolder | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Change the group while no other cluster object does."""
        make_private(self._parent)
        make_private(self._folder)
        with locked(self._folder / "lock"):
            yield

    def begin(self, *, is_new: bool) -> None:
        """Use the group from now on; `is_new` if it was opened for this."""
        if not live_folders(self._folder):  # what killed ones have noted is no more so
            self._write(Before(is_new))
        self._place = LiveFolder(self._folder)

    def note(self, wishes: DemandChange) -> None:
        """Note what wishes were before they are changed."""
        before = self._read()
        before.add(wishes)
        self._write(before)

    def end(self) -> Before | None:
        """Use it no longer; return what is to be given back, if nobody else uses it."""
        if self._place is None:
            return None
        self._place.close()
        self._place = None
        if live_folders(self._folder):
            return None
        before = self._read()
        self._file.unlink()
        return before

    def __repr__(self) -> str:
        state = "not used" if self._place is None else "used"
        return f"<Borrowing {self._folder.name}, {state}>"

    def _read(self) -> Before:
        return msgspec.json.decode(self._file.read_bytes(), type=Before)

    def _write(self, before: Before) -> None:
        write_whole(self._file, msgspec.json.encode(before))
