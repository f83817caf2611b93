"""A host of the lab: the programs that run on it, and their end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

import trio

from aemesh.testing import lab_sweep
from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_link import Linked, end_process
from aemesh.testing.lab_namespaces import USER, python_in_hosts
from aemesh.testing.lab_needs import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from typing import Unpack

    from aemesh.testing.lab_namespaces import Ground, Seat

# A program that takes longer than this in a test hangs.
RUN_WITHIN = 60.0
# users:(("python3",pid=4242,fd=3),("python3",pid=4243,fd=3))
_USERS = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=(\d+),fd=\d+\)')


class Surroundings(TypedDict, total=False):
    """What a program finds: by default the host's user, in the home."""

    env: Mapping[str, str] | None  # besides ``Host.environment``
    cwd: Path | str | None
    root: bool


class Pipes(Surroundings, total=False):
    """Where a program reads and writes, as for ``trio.lowlevel.open_process``.

    Its input is empty, and what it says is seen where we say it, by default.
    """

    stdin: int | IO[bytes] | None
    stdout: int | IO[bytes] | None
    stderr: int | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket on a host that waits for strangers."""

    protocol: str
    address: str
    port: int
    pid: int
    program: str


class Host(Linked):
    """One host; made by ``open_lab``, and gone with it."""

    def __init__(self, ground: Ground, seat: Seat) -> None:
        super().__init__(ground, seat)
        self.uid = seat.uid
        self.user = USER
        self.home = seat.home
        # Root's part of what this machine and the host see under the same path.
        self.folder = seat.folder
        self.python = python_in_hosts()
        self.aemesh = (self.python, "-m", "aemesh")
        self._many_users = ground.many_users
        self._mark = seat.mark
        self._holder = seat.holder
        self._namespaces = lab_sweep.namespaces_of(seat.holder)
        self._started: list[trio.Process] = []

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<Host {self.name} {self.ipv4}>"

    def environment(self, *, root: bool = False) -> dict[str, str]:
        """Return a program's environment on this host; nothing of ours is in it."""
        folders = [str(Path(self.python).parent), *lab_sweep.SBIN.split(":")]
        return {
            "HOME": str(self.home),
            "USER": "root" if root else self.user,
            "LOGNAME": "root" if root else self.user,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "PATH": ":".join(dict.fromkeys(folders)),
            "PYTHONPATH": "/mnt/aemesh/checkout",
            "XDG_RUNTIME_DIR": f"/run/user/{self.uid}",
            lab_sweep.MARK: self._mark,
        }

    async def start(
        self, argv: Sequence[str], **options: Unpack[Pipes]
    ) -> trio.Process:
        """Start a program; its ``.pid`` is the program's own.  The lab's end kills it.

        It runs as the host's user, in the home and in a session of its own.
        """
        process = await trio.lowlevel.open_process(
            self._enter(argv, options),
            stdin=options.get("stdin", subprocess.DEVNULL),
            stdout=options.get("stdout"),
            stderr=options.get("stderr"),
            env=self._environment(options),
            start_new_session=True,
            umask=0o022,
        )
        self._started = [one for one in self._started if one.returncode is None]
        self._started.append(process)
        return process

    @asynccontextmanager
    async def open_process(
        self, argv: Sequence[str], **options: Unpack[Pipes]
    ) -> AsyncIterator[trio.Process]:
        """Run a program as long as the block lasts; then it is killed."""
        process = await self.start(argv, **options)
        try:
            yield process
        finally:
            await end_process(process)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        check: bool = True,
        within: float = RUN_WITHIN,
        **options: Unpack[Surroundings],
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it said, as text.

        Raises LabError if it takes longer than ``within`` seconds (it is killed), or,
        with ``check``, if it ends with anything but 0.
        """
        words = " ".join(argv)
        try:
            with trio.fail_after(within):
                done = await trio.run_process(
                    self._enter(argv, options),
                    stdin=stdin.encode(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    deliver_cancel=_kill_now,
                    env=self._environment(options),
                    start_new_session=True,
                    umask=0o022,
                )
        except trio.TooSlowError as late:
            what = f"`{words}` on {self.name} took longer than {within:g} s"
            raise LabError(what) from late
        out = done.stdout.decode(errors="replace")
        err = done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            what = f"`{words}` on {self.name} ended with {done.returncode}"
            raise LabError(what, why=(err.strip() or out.strip()) or None)
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    def processes(self) -> set[int]:
        """Return the pids of all that runs on this host."""
        # A program in the midst of its first exec shows neither mark nor namespace.
        started = {one.pid for one in self._started if one.returncode is None}
        found = lab_sweep.members(self._namespaces, self._mark) - {self._holder}
        return found | started

    async def listeners(self) -> list[Listener]:
        """Return the TCP and UDP sockets on this host that wait for strangers."""
        # Not psutil: it looks for every process in our own network namespace.
        done = await self.run([program("ss"), "-Htulnp"], root=True)
        found = {one for line in done.stdout.splitlines() for one in _listeners(line)}
        return sorted(found, key=lambda one: (one.protocol, one.port, one.address))

    def kill(self, pid: int) -> None:
        """Kill one process of this host with SIGKILL."""
        if pid not in self.processes():
            what = f"no process {pid} runs on {self.name}"
            raise LabError(what)
        os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill all that runs on this host; its kernel still says goodbye for it."""
        for process in self._started:
            process.kill()
        lab_sweep.kill_members(self._namespaces, self._mark, spare=(self._holder,))

    async def suspend(self) -> None:
        """Close the lid: the link goes down, and nothing runs any more."""
        await self.cut()
        stopped: set[int] = set()
        # One that forks while it is looked for is found in the next round.
        while found := self.processes() - stopped:
            for pid in found:
                _signal(pid, signal.SIGSTOP)
            stopped |= found

    async def resume(self) -> None:
        """Open the lid: all goes on, unaware, and the link is up."""
        await self.mend()
        for pid in self.processes():
            _signal(pid, signal.SIGCONT)

    async def crash(self) -> None:
        """Pull the plug: off the network first, so that no peer is told anything."""
        await self.cut()
        self.kill_all()

    async def close(self) -> None:
        """Kill what runs here and reap it; called by the lab's end."""
        self.kill_all()
        wires = [] if self._wire is None else [self._wire]
        for process in (*self._started, *wires):
            await end_process(process)

    def _environment(self, options: Surroundings) -> dict[str, str]:
        ours = self.environment(root=options.get("root", False))
        return ours | dict(options.get("env") or {})

    def _enter(self, argv: Sequence[str], options: Surroundings) -> list[str]:
        """Return the chain of execs into the host; each keeps the pid."""
        uid = str(self.uid)
        become: tuple[str, ...] = ()
        if options.get("root", False):
            pass
        elif self._many_users:
            become = (program("setpriv"), "--reuid", uid, "--regid", uid)
            become += ("--clear-groups", "--inh-caps=-all", "--")
        else:
            # The only user there is, under a number that is not root's.
            become = (program("unshare"), "--user", f"--map-user={uid}")
            become += (f"--map-group={uid}", "--")
        return [
            *(program("nsenter"), f"--target={self._holder}"),
            *("--net", "--mount", "--uts", "--ipc", "--"),
            *become,
            *(program("env"), f"--chdir={options.get('cwd') or self.home}", "--"),
            *argv,
        ]


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def _kill_now(process: trio.Process) -> None:
    process.kill()


def _listeners(line: str) -> Iterator[Listener]:
    """Read a line of ``ss``: protocol, state, two queues, here, there, who."""
    protocol, _, _, _, here, _, *who = line.split(maxsplit=6)
    address, _, port = here.rpartition(":")
    address = address.partition("%")[0].strip("[]")
    for name, pid in _USERS.findall("".join(who)):
        yield Listener(protocol, address, int(port), int(pid), name)
