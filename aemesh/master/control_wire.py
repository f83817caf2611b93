"""What both ends of the control API share: requests, errors, and the socket.

It imports neither starlette nor hypercorn, so that a client stays cheap.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aemesh.errors import SettingsError
from aemesh.model.view import Delegate

if TYPE_CHECKING:
    from collections.abc import Iterator

MEDIA_LINES = "application/x-ndjson"
MEDIA_EVENTS = "text/event-stream"

# Where the socket lies beneath a master's folder of the state directory.
SOCKET_FILE = "run/control.sock"

# One client is one connection; a laptop's shells and notebooks are few.
BACKLOG = 64


class OpenGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups``."""

    name: str
    engine: str = "dask"


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/moves``."""

    worker: str
    group: str


class Certify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups/NAME/certificates``; `life_after` 0 is longest."""

    csr: str
    life_after: float = 0.0


class Exec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups/NAME/exec``."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    delegate: Delegate | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """What ``AemeshError.fields()`` looks like on the wire."""

    error: str
    what: str
    why: str | None = None
    hint: str | None = None
    exit_code: int = 1


# A socket's address holds 108 bytes (104 on macOS); state directories in deep
# temporary folders are longer.  Linux reaches any folder that is open under a
# short name of its own; elsewhere the path itself must do.
@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name of `path` that fits a socket's address, while the block lasts."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}"
        yield f"{short}/{path.name}" if Path(short).exists() else str(path)
    finally:
        os.close(folder)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at `path`, in a folder that only we may enter; remove it at the end.

    A socket that an ended process left is replaced: that no second master runs in
    one state directory is held by the directory's lock, not by this file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(path.parent)
    with socket.socket(socket.AF_UNIX) as sock, short_path(path) as short:
        path.unlink(missing_ok=True)
        sock.bind(short)
        path.chmod(0o600)
        sock.listen(BACKLOG)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)


def connected(path: Path, timeout_after: float | None) -> socket.socket:
    """Return a socket connected to `path`; raises `OSError` if nothing listens."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout_after)
        with short_path(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_private(folder: Path) -> None:
    """Refuse a folder that others may enter or that is not ours."""
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & 0o077:
        msg = f"{folder} is no place for the control socket"
        raise SettingsError(
            msg,
            why=f"others may enter it (mode {mode:o}, owner {status.st_uid})",
            hint=f"chmod 700 {folder}",
        )
