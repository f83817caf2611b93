"""Folders of ours: private when made, checked when used, emptied without traces."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from aemesh.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path, *, error: type[SettingsError] = SettingsError) -> None:
    """Make a folder with mode 0700 if it is not there, and check that it is ours."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
    except OSError as caught:
        what = f"folder {folder} cannot be made"
        raise error(what, why=caught.strerror or str(caught)) from caught
    check_folder(folder, error=error)


def check_folder(folder: Path, *, error: type[SettingsError] = SettingsError) -> None:
    """Refuse a folder in which somebody else could put or exchange files.

    Its parent counts too, where others can write and no sticky bit stops them
    from renaming what is ours.
    """
    try:
        status, above = folder.stat(), folder.parent.stat()
    except OSError as caught:
        what = f"folder {folder} cannot be used"
        raise error(what, why=caught.strerror or str(caught)) from caught
    check_owned(folder, status, error=error)
    if above.st_mode & _OTHERS_WRITE and not above.st_mode & stat.S_ISVTX:
        what = f"folder {folder} is not safe"
        why = f"others can write in {folder.parent}, so they could exchange it"
        raise error(what, why=why, hint=f"chmod go-w {folder.parent}")


def check_owned(
    path: Path, status: os.stat_result, *, error: type[SettingsError] = SettingsError
) -> None:
    """Refuse what belongs to another user or can be written by others.

    Root's files pass: root could do anything anyhow, and administrators write
    trust files for their users.
    """
    if status.st_uid not in {os.geteuid(), 0}:
        what = f"{path} is not ours"
        why = f"it belongs to user {status.st_uid}, we are user {os.geteuid()}"
        raise error(what, why=why)
    if status.st_mode & _OTHERS_WRITE:
        what = f"{path} is not safe"
        why = f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise error(what, why=why, hint=f"chmod go-w {path}")


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; what cannot be removed is left, silently.

    Symbolic links are removed, never followed.
    """
    for base, folders, _ in os.walk(path):
        for name in folders:
            inner = os.path.join(base, name)
            if not os.path.islink(inner):  # a job may have locked itself out
                with contextlib.suppress(OSError):
                    os.chmod(inner, PRIVATE)
    shutil.rmtree(path, ignore_errors=True)


def empty(folder: Path) -> None:
    """Remove everything in a folder, but not the folder."""
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            remove_tree(child)
        else:
            child.unlink(missing_ok=True)
