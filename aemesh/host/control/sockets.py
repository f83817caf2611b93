"""The socket of a node: where it lies, who may use it, and how an error looks on it.

It imports no web server, so that a client stays cheap, and so does a node to which
nobody comes.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from aemesh.errors import SettingsError
from aemesh.host.control.shortpath import short_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trio

# Where the socket lies beneath a node's folder of the state directory.
SOCKET_FILE = "run/control.sock"

# Each thing that a client does is one connection, and `aemesh map` starts items by the
# hundred.  More: they wait until a place is free.
BACKLOG = 256
# What a timeout of the kernel's looks like: whole seconds, and microseconds.
_TIMEVAL = struct.Struct("@ll")


class ErrorBody(msgspec.Struct, frozen=True):
    """What ``AemeshError.fields()`` looks like on the wire."""

    error: str
    what: str
    why: str | None = None
    hint: str | None = None
    exit_code: int = 1


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at `path`, in a folder that only we may enter; remove it at the end.

    A socket that an ended process left is replaced: that no second node runs in
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
    """Return a socket connected to `path`; raises `OSError` if nothing listens.

    Where others wait to be let in it waits, too; raises `TimeoutError` if that is long.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        # Not `settimeout`: without blocking, a full backlog is an error (EAGAIN).
        if timeout_after is not None:
            whole, part = divmod(timeout_after, 1.0)
            wait = _TIMEVAL.pack(int(whole), int(part * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        with short_path(path) as short:
            sock.connect(short)
        sock.settimeout(timeout_after)
    except BlockingIOError:
        sock.close()
        raise TimeoutError from None
    except BaseException:
        sock.close()
        raise
    return sock


def is_ours(sock: trio.socket.SocketType) -> bool:
    """Whether the other end runs as our user, or as root; true if it is not told."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux: the folder's mode stands alone
        return True
    form = "3i"
    told = sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize(form))
    _pid, uid, _gid = struct.unpack(form, told)
    return uid in {0, os.geteuid()}


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
