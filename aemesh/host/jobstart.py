"""Starts the leader of a job: folder, files, pipes, session, process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
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
from aemesh.host.openfiles import give_usual
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
    plain = _plain(start)
    with trio.CancelScope(shield=True):
        try:
            sock = await trio.to_thread.run_sync(_make_room, start, plain)
            try:
                process, tree, output = await _open(start, plain)
            except BaseException:
                sock.close()
                job_socket(start.room).unlink(missing_ok=True)
                raise
        except (OSError, subprocess.SubprocessError) as error:
            await trio.to_thread.run_sync(remove_tree, start.room)
            what = f"job {start.job} cannot start {quoted(start.spec.argv[0])}"
            why = getattr(error, "strerror", None) or str(error)
            raise EngineError(what, why=why) from error
    wrapped = start.sandbox is not None
    return Started(process, tree, output, start.room, sock, wrapped=wrapped)


def _make_room(start: Start, plain: Command) -> socket.socket:
    make_room(start.room, start.spec, tls=start.tls)
    if start.sandbox is not None:
        start.sandbox.check_program(plain)
    return open_job_socket(start.room)


def _plain(start: Start) -> Command:
    """Return what is to be started, without a sandbox."""
    own = {
        VARIABLE: str(job_socket(start.room)),
        CHECKPOINT_VARIABLE: str(checkpoint_folder(start.room)),
    }
    env = job_environment(
        start.spec, job=start.job, marker=start.marker, extra={**start.env, **own}
    )
    return Command(job_argv(start.spec), env, start.room)


def _in_sandbox(start: Start, plain: Command) -> AbstractContextManager[Command]:
    return nullcontext(plain) if start.sandbox is None else start.sandbox.around(plain)


async def _open(
    start: Start, plain: Command
) -> tuple[trio.Process, JobTree, JobOutput]:
    output = JobOutput()
    ends: list[int] = []
    try:
        ends.append(output.pipe(Channel.STDOUT))
        ends.append(output.pipe(Channel.STDERR))
        with _in_sandbox(start, plain) as command:
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
        give_usual(process.pid)
        tree = await _tree(process, start.marker)
    except BaseException:
        output.close()
        raise
    finally:
        for fd in ends:
            os.close(fd)
    return process, tree, output


async def _tree(process: trio.Process, marker: str) -> JobTree:
    """Return the tree of a leader; without files, end it and raise `OSError`."""
    try:
        # Not buried before `Process.wait`, so it is there even if it ended at once.
        now = read_process(process.pid)
    except OSError:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()
        raise
    return JobTree(process.pid, now.started if now is not None else 0, marker)
