"""A command line on a member, with our standard input and output as its own.

It runs as ssh would run it: by a shell, in the home folder of who runs the worker.
Bytes go through as they are, each as soon as it comes.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import EngineError, OutputError, UnreachableError, UsageError
from aemesh.model.job import Channel

if TYPE_CHECKING:
    from aemesh.client.memberjob import MemberJob
    from aemesh.client.mesh import Mesh

# A job starts in an empty folder of its own, and ssh's in the user's home: relative
# paths of rsync, git and scp mean the latter.  A shell that cannot go there says so,
# and goes on, as sshd does.
_AT_HOME = 'cd "${HOME:-/}" || cd /; exec /bin/sh -c "$1"'
# With $2: who the caller wants to be there.
_AS_USER = (
    'u=$(id -un); if [ "$u" != "$2" ]; then'
    ' echo "aemesh: error: the worker runs as $u, not as $2" >&2; exit 255; fi; '
)
_NAMES = {1: "standard output", 2: "standard error"}
# What a shell says of who was ended by SIGPIPE: our reader went away.
_BROKEN_PIPE = 128 + 13


def run_remote(  # noqa: PLR0913 - what ssh is told as well
    mesh: Mesh,
    worker: str,
    command: str,
    *,
    group: str | None = None,
    user: str | None = None,
    takes_input: bool = True,
) -> int:
    """Run a command line on a member of a group, or of any; return its exit code.

    Raises `UsageError` for a command that is no text, and what starting a job raises;
    `UnreachableError` if the worker is lost, `EngineError` if it ended the job.
    """
    script, words = _AT_HOME, [command]
    if user is not None:
        script, words = _AS_USER + _AT_HOME, [command, user]
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        msg = "the command is no UTF-8"
        raise UsageError(msg, why="it cannot be said to the master") from None
    argv = ["/bin/sh", "-c", script, "sh", *words]
    with mesh.job(worker, argv, group=group) as job:
        if takes_input:
            # It may wait for input for ever, and must not hold up the end.
            threading.Thread(target=_give_input, args=(job,), daemon=True).start()
        else:
            job.close_input()
        if not _show_output(job):
            return _BROKEN_PIPE
        exit_ = job.wait()
    if exit_.code < 0:
        msg = f"{worker} was lost"
        raise UnreachableError(msg, why=exit_.reason)
    if exit_.reason:
        msg = f"{worker} ended the command"
        raise EngineError(msg, why=exit_.reason)
    return exit_.code


def _give_input(job: MemberJob) -> None:
    """Send our standard input to its end, or until the job takes no more."""
    with suppress(UnreachableError):
        while data := _read():
            job.send(data)
        job.close_input()


def _read() -> bytes:
    while True:
        try:
            return os.read(0, limits.CHUNK_BYTES)
        except BlockingIOError:
            _wait(0, select.POLLIN)
        except OSError:  # closed: somebody started us without
            return b""


def _show_output(job: MemberJob) -> bool:
    """Pass the output on; return whether all of it was taken."""
    try:
        for chunk in job.output():
            _write(1 if chunk.channel is Channel.STDOUT else 2, chunk.data)
    except BrokenPipeError:
        return False
    return True


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            _wait(fd, select.POLLOUT)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(_NAMES[fd], error) from error


def _wait(fd: int, event: int) -> None:
    """Wait for a pipe that does not block: rsync hands such ones to its shell."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
