"""Large values as files that are named by their content.

A file has its name only once all of it is on the disk, so a name is a promise.  Two
runs with one value share its file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aemesh.errors import LedgerError
from aemesh.host.folders import make_private
from aemesh.host.wholefile import sync_folder, write_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Folders of 256 names: a hundred thousand files are no burden to any file system.
_SHARD = 2


class Blobs:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        make_private(folder)
        self._folder = folder
        self._shards: set[Path] = set()  # whose own names we have brought to the disk

    def put(self, digest: str, value: bytes) -> None:
        """Bring a value to the disk, name included, unless it is there."""
        path = self._path(digest)
        if path.parent not in self._shards:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
            self._shards.add(path.parent)
        if path.exists() or not write_once(path, value):
            # Whoever made it may have been killed between the name and the disk.
            sync_folder(path.parent)

    def get(self, digest: str) -> bytes:
        """Return a value; raises `LedgerError` if its file is gone."""
        path = self._path(digest)
        try:
            return path.read_bytes()
        except OSError as exc:
            msg = f"a value of a run cannot be read from {path}"
            raise LedgerError(msg, why=exc.strerror) from exc

    def names(self) -> Iterator[str]:
        """Yield the digest of each value, and whatever else lies there."""
        for shard in sorted(self._folder.iterdir()):
            if shard.is_dir():
                yield from (entry.name for entry in os.scandir(shard))

    def drop(self, name: str) -> None:
        """Remove a value, or what a killed process left in its place."""
        # A half-written file is named ".DIGEST.…" and lies where its value would.
        shard = name.lstrip(".")[:_SHARD]
        (self._folder / shard / name).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:_SHARD] / digest
