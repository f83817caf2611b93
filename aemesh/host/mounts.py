"""Where else a folder is seen: the mounts of this machine, by proc_pid_mountinfo(5).

One folder may have many paths: a bind mount, the whole disk beside its parts, a home
that is mounted from where it is exported.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A part of a file system, and where it is seen."""

    device: bytes
    root: Path  # within the file system
    point: Path


def read_mounts() -> list[Mount]:
    """Return what is mounted, in the order in which it came."""
    fields = (line.split(b" ") for line in _MOUNTS.read_bytes().splitlines())
    return [Mount(one[2], _path(one[3]), _path(one[4])) for one in fields]


def other_places(folder: Path, mounts: Iterable[Mount]) -> set[Path]:
    """Return other paths at which a folder, or a part of it, is seen now.

    `folder` is a real path.
    """
    over = [mount for mount in mounts if folder.is_relative_to(mount.point)]
    own = max(over, key=lambda mount: len(mount.point.parts))
    inner = own.root / folder.relative_to(own.point)
    found = set()
    for mount in mounts:
        if mount.device != own.device:
            continue
        if inner.is_relative_to(mount.root):
            here, there = folder, mount.point / inner.relative_to(mount.root)
        elif mount.root.is_relative_to(inner):
            here, there = folder / mount.root.relative_to(inner), mount.point
        else:
            continue
        if there != here and _is_same(here, there):
            found.add(there)
    return found


def _is_same(one: Path, other: Path) -> bool:
    """Whether it is one folder; something else may be mounted upon a path."""
    try:
        return other.is_dir() and os.path.samefile(one, other)
    except OSError:
        return False


def _path(text: bytes) -> Path:
    plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text)
    return Path(os.fsdecode(plain))
