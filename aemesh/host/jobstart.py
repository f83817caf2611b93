"""Starts the leader of a job: folder, files, pipes, session, process."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from aemesh.errors import EngineError, quoted
from aemesh.host.folders import remove_tree
from aemesh.host.joboutput import JobOutput
from aemesh.host.jobroom import (
    CHECKPOINT_VARIABLE,
    checkpoint_folder,
    job_argv,
    job_environment,
    make_room,
)
from aemesh.host.jobsocket import VARIABLE, job_socket, open_job_socket
from aemesh.host.jobtree import JobTree
from aemesh.host.localjob import Started
from aemesh.host.processes import read_process
from aemesh.host.sandbox import Command, Sandbox
from aemesh.model.job import Channel, JobSpec

if TYPE_CHECKING:
    import socket


@dataclass(frozen=True, slots=True)
class Start:
    """A job that is to be started."""

    job: str  # what the job is told that it is
    spec: JobSpec
    room: Path  # its folder, not there yet
    marker: str
    tls: Mapping[str, bytes] = field(repr=False)  # a private key is among them
    env: Mapping[str, str]
    sandbox: Sandbox | None = None


async def launch(start: Start) -> Started:
    """Start a job's leader, or raise `EngineError` and leave nothing.

    Shielded: a cancellation in the middle would lose a process that runs already.
    """
    with trio.CancelScope(shield=True):
        try:
            sock = await trio.to_thread.run_sync(_make_room, start)
            try:
                process, output = await _open(start)
            except BaseException:
                sock.close()
                job_socket(start.room).unlink(missing_ok=True)
                raise
        except (OSError, subprocess.SubprocessError) as error:
            await trio.to_thread.run_sync(remove_tree, start.room)
            what = f"job {start.job} cannot start {quoted(start.spec.argv[0])}"
            why = getattr(error, "strerror", None) or str(error)
            raise EngineError(what, why=why) from error
    # Not buried before `Process.wait`, so it is there even if it ended at once.
    now = read_process(process.pid)
    started = now.started if now is not None else 0
    tree = JobTree(process.pid, started, start.marker)
    wrapped = start.sandbox is not None
    return Started(process, tree, output, start.room, sock, wrapped=wrapped)


def _make_room(start: Start) -> socket.socket:
    make_room(start.room, start.spec, tls=start.tls)
    return open_job_socket(start.room)


@contextmanager
def _command(start: Start) -> Iterator[Command]:
    """Yield what is to be started, while the block lasts; raises `OSError`."""
    own = {
        VARIABLE: str(job_socket(start.room)),
        CHECKPOINT_VARIABLE: str(checkpoint_folder(start.room)),
    }
    env = job_environment(
        start.spec, job=start.job, marker=start.marker, extra={**start.env, **own}
    )
    plain = Command(job_argv(start.spec), env, start.room)
    if start.sandbox is None:
        yield plain
        return
    _check_program(plain)
    with start.sandbox.around(plain) as command:
        yield command


def _check_program(command: Command) -> None:
    """Raise `OSError` without the program: bubblewrap would start, and end with 1."""
    name = command.argv[0]
    if "/" in name:
        found = os.access(command.cwd / name, os.X_OK)
    else:
        path = command.env.get("PATH", os.defpath)
        found = shutil.which(name, path=path) is not None
    if not found:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)


async def _open(start: Start) -> tuple[trio.Process, JobOutput]:
    output = JobOutput()
    ends = [output.pipe(channel) for channel in (Channel.STDOUT, Channel.STDERR)]
    try:
        with _command(start) as command:
            process = await trio.lowlevel.open_process(
                command.argv,
                stdin=subprocess.PIPE,
                stdout=ends[0],
                stderr=ends[1],
                cwd=command.cwd,
                env=command.env,
                pass_fds=command.fds,
                start_new_session=True,
            )
    except BaseException:
        output.close()
        raise
    finally:
        for fd in ends:
            os.close(fd)
    return process, output
