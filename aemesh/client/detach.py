"""How a script goes on without the terminal that it was started from.

The command forks twice: the grandchild is in a session of its own, leads it not, and so
never gets a terminal again; a hang-up is ignored.  It becomes the *supervisor*: it
guards the script as a warden does (see `host.warden`), so that nothing outlives either,
and writes down how the script ended.  Its child, the agent, keeps what the script
prints, and runs it.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from typing import TYPE_CHECKING

from aemesh.client.joboutput import OutputWriter, kept_output
from aemesh.client.jobs import MARKER, ClientJob, Record, write_record
from aemesh.errors import UnreachableError
from aemesh.host.folders import remove_tree
from aemesh.host.processname import ProcessName
from aemesh.host.warden import end_all_below, run_guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_UNDER_WAY = b"+"
# The agent hides its own standard streams behind the output; the rest is the user's.
_STREAMS = 3


def start_detached(
    folder: Path,
    main: Callable[[], int],
    *,
    script: str,
    args: Sequence[str],
    group: str | None,
) -> None:
    """Run `main` apart from our terminal; return when its supervisor is under way.

    `main` tells its errors itself.  Only we return; the supervisor and the agent end
    in here.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reading)
        job = _become_supervisor(folder, script, tuple(args), group, keep=writing)
        os.write(writing, _UNDER_WAY)
        os.close(writing)
        _supervise(job, main)
    os.close(writing)
    os.waitpid(child, 0)
    under_way = os.read(reading, 1)
    os.close(reading)
    if under_way != _UNDER_WAY:
        remove_tree(folder)
        msg = f"{script} was not started"
        raise UnreachableError(msg, why="its supervisor ended at once")


def _become_supervisor(
    folder: Path, script: str, args: tuple[str, ...], group: str | None, *, keep: int
) -> ClientJob:
    """Let go of the terminal and of all open files; write down what the job is."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(_STREAMS):
        os.dup2(nowhere, number)
    # A pipe of the caller's that stays open would let the caller wait for us.
    os.closerange(_STREAMS, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    ours = ProcessName.ours()
    record = Record(
        script=script,
        args=args,
        group=group,
        cwd=os.getcwd(),
        started_at=time.time(),
        marker=secrets.token_hex(16),
        host=ours.host,
        boot=ours.boot,
        pid=ours.pid,
        ticks=ours.started,
    )
    return write_record(folder, record)


def _supervise(job: ClientJob, main: Callable[[], int]) -> None:
    def agent() -> int:
        os.environ[MARKER] = job.record.marker
        with kept_output(OutputWriter(job.folder)):
            try:
                return main()
            finally:
                end_all_below()  # what still ran could still talk

    code = run_guarded(agent)
    # The agent does not get here: it has left by SystemExit.
    job.mark_ended(code)
    os._exit(0)
