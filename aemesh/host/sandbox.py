"""A sandbox for jobs, for owners who say so: `bubblewrap`, around each of them.

A job in it sees the machine read-only, and of its owner's home nothing but the
interpreter: no keys, no trust files, no other job.  It writes to its own folder alone;
what it puts into home or a temporary folder goes with it.  It sees no process but its
own, has no capability, gets none by set-uid programs, and makes no user namespace.
The network is open to it, for engines are made of connections.

Source of the options: bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from aemesh.errors import SettingsError
from aemesh.host.jobsocket import job_socket

BWRAP = "bwrap"
# It starts in 30 ms; on a busy machine in more.
_TRIED_WITHIN = 10.0

_ALWAYS = (
    *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc"),
    *("--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *("--tmpfs", "/tmp", "--tmpfs", "/var/tmp"),  # noqa: S108 - it hides them
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """bubblewrap, and what it hides: home, and the node's state wherever that is."""

    program: str
    hidden: tuple[Path, ...]

    def argv(self, argv: list[str], *, room: Path) -> list[str]:
        """Return the arguments that run `argv` in the sandbox, in a job's folder."""
        own = room.absolute()
        words = [self.program, *_ALWAYS]
        for folder in self.hidden:
            words += ["--tmpfs", str(folder)]
        for folder in _interpreter(self.hidden):
            words += ["--ro-bind", str(folder), str(folder)]
        for path in (own, job_socket(room)):
            words += ["--bind", str(path), str(path)]
        return [*words, "--chdir", str(own), "--", *argv]


def find_sandbox(kind: str, *, state: Path) -> Sandbox | None:
    """Return the sandbox of this kind, `none` or `bwrap`, after trying it.

    Raises `SettingsError` if it is not installed or the kernel refuses it: a worker
    whose owner wants one does not go on without.
    """
    if kind != BWRAP:
        return None
    program = shutil.which(BWRAP)
    if program is None:
        msg = "--sandbox bwrap: there is no bwrap here"
        raise SettingsError(msg, hint="install the package bubblewrap")
    hidden = (Path.home().resolve(), state.resolve())
    sandbox = Sandbox(program, tuple(path for path in hidden if path.is_dir()))
    try:
        done = subprocess.run(  # noqa: S603 - the program that the owner named
            [program, *_ALWAYS, "--", sys.executable, "-I", "-S", "-c", ""],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIED_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(str(error)) from error
    if done.returncode:
        raise _unusable(done.stderr.decode(errors="replace").strip())
    return sandbox


def _unusable(why: str) -> SettingsError:
    msg = "--sandbox bwrap: bubblewrap does not work here"
    hint = "it needs user namespaces: sysctl kernel.unprivileged_userns_clone"
    return SettingsError(msg, why=why, hint=hint)


def _interpreter(hidden: tuple[Path, ...]) -> list[Path]:
    """Return the folders of the running Python, wherever they are.

    Those of the environment and of what it is made of; also where aemesh and what it
    imports come from in a checkout.  None that holds what is hidden: ``python -m``
    looks for modules where it was started, which may be home.
    """
    named = (sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path))
    folders: list[Path] = []
    for text in sorted(set(named), key=len):  # what holds others comes first
        folder = Path(text)
        shows = any(path.is_relative_to(folder.resolve()) for path in hidden)
        is_within = any(folder.is_relative_to(one) for one in folders)
        if folder.is_dir() and not shows and not is_within:
            folders.append(folder)
    return folders
