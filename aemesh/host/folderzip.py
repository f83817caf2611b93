"""A folder of files as one zip, and back: for the checkpoints of commands.

Only files and folders go in: a symbolic link would point at something else on another
machine.  What comes back was written by another member of our group, so it is held to
the same: plain names beneath the folder, no links, no more than what fits.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, RunFullError, SettingsError, quoted
from aemesh.host.folders import PRIVATE, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Times of files are not kept; a zip has no earlier one.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_EXECUTABLE = 0o100
_NAME_BYTES = 255  # any file system's
# What `zipfile` and files say of a zip that we did not make.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError),
    *(NotImplementedError, RuntimeError, FileExistsError, NotADirectoryError),
)


def zip_folder(folder: Path) -> bytes:
    """Return a folder as a zip.

    Raises `SettingsError` for what is neither file nor folder or cannot be read,
    `RunFullError` beyond the bounds of a checkpoint.
    """
    try:
        return _zipped(folder)
    except OSError as error:
        hint = "commit while nothing else writes to the folder"
        if isinstance(error, PermissionError):
            hint = "make it readable, or keep it in another folder"
        msg = f"{error.filename or folder} cannot be in a checkpoint"
        raise SettingsError(msg, why=error.strerror, hint=hint) from error


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        count = size = 0
        for path in _walk(folder):
            status = path.lstat()
            name = _name(path, folder)
            count, size = count + 1, size + status.st_size
            _check_bounds(folder, count, size)
            if stat.S_ISDIR(status.st_mode):
                archive.writestr(zipfile.ZipInfo(f"{name}/", _NO_TIME), b"")
            elif stat.S_ISREG(status.st_mode):
                info = zipfile.ZipInfo(name, _NO_TIME)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (status.st_mode & _EXECUTABLE) << 16
                info.file_size = status.st_size
                with path.open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
            else:
                msg = f"{path} cannot be in a checkpoint"
                raise SettingsError(msg, why="it is neither a file nor a folder")
    return buffer.getvalue()


def unzip_untrusted(data: bytes, folder: Path) -> None:
    """Make `folder` what was zipped, in place of what it is; whole or not at all.

    Raises `BadMessage` for what `zip_folder` does not make.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    remove_tree(fresh)
    fresh.mkdir(mode=PRIVATE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check(entries)
            for info in entries:
                _unzip(archive, info, fresh)
        remove_tree(folder)
        fresh.rename(folder)
    except _BROKEN as exc:
        msg = f"a checkpoint that is no zip: {quoted(str(exc))}"
        raise BadMessage(msg) from None
    finally:
        remove_tree(fresh)


def _check_bounds(folder: Path, count: int, size: int) -> None:
    if count > limits.CHECKPOINT_FILES:
        why = f"it has more than {limits.CHECKPOINT_FILES} files and folders"
    elif size > limits.CHECKPOINT_BYTES:
        why = f"its files have more than {limits.CHECKPOINT_BYTES} bytes together"
    else:
        return
    msg = f"{folder} is no checkpoint"
    hint = "keep what can be computed again in another folder"
    raise RunFullError(msg, why=why, hint=hint)


def _name(path: Path, folder: Path) -> str:
    """Return how a file is called; refuse what would not come back."""
    name = path.relative_to(folder).as_posix()
    if "\\" in name or name.encode(errors="replace").decode() != name:
        # Folders come before what is in them, so it is the last part of the name.
        msg = f"{quoted(path.name)} in {path.parent} cannot be in a checkpoint"
        why = "its name has a backslash, or is not UTF-8"
        raise SettingsError(msg, why=why, hint="give it another name")
    return name


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all that is beneath a folder; links are not followed."""
    for child in sorted(folder.iterdir()):
        yield child
        if child.is_dir() and not child.is_symlink():
            yield from _walk(child)


def _check(entries: list[zipfile.ZipInfo]) -> None:
    size = sum(info.file_size for info in entries)
    if len(entries) > limits.CHECKPOINT_FILES or size > limits.CHECKPOINT_BYTES:
        msg = f"a checkpoint of {len(entries)} files and {size} bytes"
        raise BadMessage(msg)
    for info in entries:
        parts = info.filename.removesuffix("/").split("/")
        mode = info.external_attr >> 16
        if (
            any(part in ("", ".", "..") or "\0" in part for part in parts)
            or any(len(part.encode(errors="replace")) > _NAME_BYTES for part in parts)
            or "\\" in info.filename
            or stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            msg = f"a checkpoint with {quoted(info.filename)}"
            raise BadMessage(msg)


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> None:
    path = folder.joinpath(*info.filename.removesuffix("/").split("/"))
    if info.is_dir():
        path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        return
    path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    mode = 0o600 | (info.external_attr >> 16 & _EXECUTABLE)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with archive.open(info) as source, open(os.open(path, flags, mode), "wb") as target:
        left = info.file_size  # a zip may have more than it says
        while data := source.read(limits.CHUNK_BYTES):
            left -= len(data)
            if left < 0:
                msg = f"a checkpoint whose {quoted(info.filename)} does not end"
                raise BadMessage(msg)
            target.write(data)
