"""Folders that live as long as the process that made them, and say which that is.

A process that was killed cannot remove what it made; the next one does, for it reads
in the folder's name whose it was (see `processname`).  What another machine made on a
shared disk is left to that machine.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh.host.folders import make_private, remove_tree
from aemesh.host.processname import ProcessName

if TYPE_CHECKING:
    from collections.abc import Iterator


class LiveFolder:
    """A private folder of this process; those of dead ones are removed with its making.

    It goes with `close`, or at the latest when the interpreter exits.
    """

    def __init__(self, parent: Path) -> None:
        make_private(parent)
        for folder, owner in _owned(parent):
            if owner.running() is False:
                remove_tree(folder)
        prefix = f"{ProcessName.ours()}-"
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))  # 0700
        self._finalizer = weakref.finalize(self, _remove_ours, self.path, os.getpid())

    def close(self) -> None:
        """Remove it; a second call does nothing."""
        self._finalizer()

    def __repr__(self) -> str:
        state = "open" if self._finalizer.alive else "closed"
        return f"<LiveFolder {self.path} {state}>"


def _remove_ours(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a fork's are its parent's
        remove_tree(path)


def live_folders(parent: Path) -> list[Path]:
    """Return the folders of processes of this machine that run."""
    return [folder for folder, owner in _owned(parent) if owner.running()]


def _owned(parent: Path) -> Iterator[tuple[Path, ProcessName]]:
    try:
        folders = list(parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for folder in folders:
        owner = ProcessName.parse(folder.name.rpartition("-")[0])
        if owner is not None:
            yield folder, owner
