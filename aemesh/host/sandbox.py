"""A sandbox for jobs, for owners who say so: `bubblewrap`, around each of them.

A job in it sees the machine read-only, and of its owner's home nothing but the
interpreter: no keys, no trust files, no other job.  It writes to its own folder alone;
what it puts into home or a temporary folder goes with it.  It sees no process but its
own, has no capability, gets none by set-uid programs, and makes no user namespace.

What stays open.  The network, for engines are made of connections: so also what listens
on this machine, and unix sockets with an abstract name (X has one), or with a path that
is seen.  The kernel's keyrings of this user: a fresh session keyring would be no wall,
since whoever has the owner's uid may link the user's keyring into it.  A file system
that is mounted while the job runs, where ``/`` is a shared mount: it is not read-only.

bubblewrap itself runs outside.  What a master says must not reach it but as words: it
has no variable of the job's, and none of the job's folder.  Its options come in a file
without a name, since anybody can read the arguments of a process, and variables may be
secrets.

Source of the options: bwrap(1).
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aemesh
from aemesh.errors import SettingsError
from aemesh.host.folders import make_private
from aemesh.host.jobroom import PYTHON, job_argv, job_environment, make_room
from aemesh.host.jobsocket import job_socket, open_job_socket
from aemesh.host.jobtree import MARKER
from aemesh.host.sandboxview import View, find_view
from aemesh.model.job import JobSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

BWRAP = "bwrap"
# It starts in 30 ms; on a busy machine in more.
_TRIED_WITHIN = 10.0
# aemesh is where the agent has it from, whatever the way on which it got there.
_TRIAL = "import sys; sys.path.insert(0, sys.argv[1]); import aemesh"

_ALWAYS = (
    *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc"),
    *("--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What the kernel is told to start."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    fds: tuple[int, ...] = ()  # open in it, too


@dataclass(frozen=True, slots=True)
class Sandbox:
    """bubblewrap, and what jobs see in it."""

    program: str  # its absolute path
    view: View

    @contextmanager
    def around(self, command: Command) -> Iterator[Command]:
        """Yield what runs a job's command in the sandbox; start it in the block."""
        words = self.options(command.env, room=command.cwd)
        with os.fdopen(os.memfd_create(BWRAP), "wb", buffering=0) as file:
            file.write(b"".join(os.fsencode(word) + b"\0" for word in words))
            file.seek(0)
            argv = [self.program, "--args", str(file.fileno()), "--", *command.argv]
            env = {MARKER: command.env[MARKER]}
            # Not the job's folder: an empty word in a path for libraries means it.
            yield Command(argv, env, Path("/"), (file.fileno(),))

    def check_program(self, command: Command) -> None:
        """Raise `OSError` if the job's program is not there, or is none.

        bubblewrap would start, and end with 1.  What is hidden is not there: whoever
        asks for a program learns nothing of home.
        """
        name, blocked = command.argv[0], False
        path = command.env.get("PATH", os.defpath)
        folders = [""] if "/" in name else path.split(os.pathsep)
        for folder in folders if name else ():
            place = command.cwd / folder / name
            if self.view.hides(place, room=command.cwd) or not place.exists():
                continue
            if place.is_file() and os.access(place, os.X_OK):
                return
            blocked = True
        number = errno.EACCES if blocked else errno.ENOENT
        raise OSError(number, os.strerror(number), name)

    def options(self, env: Mapping[str, str], *, room: Path) -> list[str]:
        """Return the options for a job with this environment and folder."""
        own = room.resolve()
        words = [*_ALWAYS, *self.view.options(room=room)]
        for path in (own, job_socket(own)):
            words += ["--bind", str(path), str(path)]
        words += ["--chdir", str(own), "--clearenv"]
        for name, value in env.items():
            words += ["--setenv", name, value]
        return words


def find_sandbox(kind: str, *, state: Path, run: Path | None = None) -> Sandbox | None:
    """Return the sandbox of this kind, `none` or `bwrap`, after trying it.

    `state` is what is to be hidden; jobs have their folders in it, or in its `run`.
    Raises `SettingsError` if it is not installed, or the kernel refuses it, or Python
    does not start in it: a worker whose owner wants one does not go on without.
    """
    if kind != BWRAP:
        return None
    program = shutil.which(BWRAP)
    if program is None:
        msg = "--sandbox bwrap: there is no bwrap here"
        raise SettingsError(msg, hint="install the package bubblewrap")
    if not state.is_dir():  # what is made later would not be hidden
        make_private(state)
    sandbox = Sandbox(os.path.abspath(program), find_view(state=state))
    try:
        _try(sandbox, run or state)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(str(error)) from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise _unusable(lines[-1] if lines else str(error)) from error
    return sandbox


def _try(sandbox: Sandbox, run: Path) -> None:
    """Run a job in the very sandbox that all others get."""
    spec = JobSpec(argv=(PYTHON, "-I", "-c", _TRIAL, _home_of_aemesh()))
    env = job_environment(spec, job="trial", marker="trial", extra={})
    with tempfile.TemporaryDirectory(prefix="trial-", dir=run) as folder:
        room = Path(folder, "room")
        make_room(room, spec, tls={})
        plain = Command(job_argv(spec), env, room)
        with open_job_socket(room), sandbox.around(plain) as command:
            subprocess.run(  # noqa: S603 - the program that the owner named
                command.argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=command.env,
                cwd=command.cwd,
                pass_fds=command.fds,
                timeout=_TRIED_WITHIN,
                check=True,
            )


def _home_of_aemesh() -> str:
    return str(Path(aemesh.__file__).parent.parent)


def _unusable(why: str) -> SettingsError:
    msg = "--sandbox bwrap: bubblewrap does not work here"
    hint: str | None = "it needs user namespaces: kernel.unprivileged_userns_clone"
    if "Unknown option" in why:
        hint = "it needs bubblewrap 0.8 or later"
    elif "execvp" in why:  # it works, and Python is not there
        hint = None
    return SettingsError(msg, why=why, hint=hint)
