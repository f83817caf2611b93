"""Files that are there whole or not at all, and the lock to change them under.

Writing in place leaves half a file when the process is killed or the disk is
full, and two writers lose each other's lines.  So a new content is written beside
the file, brought to the disk, and given its name in one step.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PRIVATE = 0o600


def write_whole(path: Path, data: bytes, *, mode: int = _PRIVATE) -> None:
    """Give `path` a new content; a reader sees the old one or the new one."""
    with _beside(path, data, mode=mode) as fresh:
        fresh.replace(path)
    sync_folder(path.parent)


def write_once(path: Path, data: bytes, *, mode: int = _PRIVATE) -> bool:
    """Make `path` with this content, unless it is there; return whether we made it.

    A hard link is the one step that gives a name to a whole file and fails if the
    name is taken: of two processes at once exactly one gets True.
    """
    with _beside(path, data, mode=mode) as fresh:
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a lock file; wait while another process has it.

    The holders here do no more than rewrite one small file, so the wait is
    milliseconds.  The lock file itself stays: removing it would let two in.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)  # and with it goes the lock


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _beside(path: Path, data: bytes, *, mode: int) -> Iterator[Path]:
    """Write `data` to a fresh file in the folder of `path`; remove it at the end."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(fresh, flags, _PRIVATE)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)
