"""Ending a lab, whatever became of its owner: its processes, namespaces and folder.

This file needs the standard library only, because it is also run as a script: a guard
process starts it when the owner of a lab died without cleaning up (kill -9).

A lab is named ``ae<pid>-<start>-<n>`` after the process that owns it; the start time
tells this process from a later one with the same number.  Its namespaces in /run/netns
and its folder in /var/tmp carry that name in front.  A process belongs to a lab if it
lives in one of its namespaces, carries its mark in the environment (a sandboxed job may
have namespaces of its own), or descends from such a process.  Never by its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NETNS = Path("/run/netns")
# Not /tmp: each host has its own /tmp, and a sandbox on a host may cover it again.
FOLDERS = Path("/var/tmp")  # noqa: S108  made with mkdir: an existing one is refused
MARK = "AEMESH_LAB"
SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# SIGKILL works at once unless a process hangs in the kernel; then we say so.
KILLED_AFTER = 5.0
# A process that forks while it is looked for is found in the next round.
KILL_ROUNDS = 20

_KINDS = ("net", "uts", "ipc", "mnt")
_NAME = re.compile(r"(ae(\d+)-(\d+)-\d+)(?:-.+)?")


def started_at(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The program's name is in parentheses and may hold anything, even parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def namespaces_of(pid: int) -> frozenset[tuple[str, int]]:
    """Return (kind, inode) of the namespaces by which a host is recognised."""
    return frozenset(
        (kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) for kind in _KINDS
    )


def members(namespaces: Collection[tuple[str, int]], mark: str) -> set[int]:
    """Return the processes in these namespaces, or marked, and what descends from them.

    A mark that ends in "-" stands for all the hosts of a lab.
    """
    parents = dict(_parents())
    found = {pid for pid in parents if _is_member(pid, namespaces, mark)}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {os.getpid(), 1}


def kill_members(
    namespaces: Collection[tuple[str, int]],
    mark: str,
    *,
    spare: Collection[int] = (),
) -> None:
    """Kill the members of a host or lab with SIGKILL, and wait until they are dead."""
    for _ in range(KILL_ROUNDS):
        victims = members(namespaces, mark) - set(spare)
        if not victims:
            return
        _kill_and_wait(victims)


def demolish(name: str) -> None:
    """End a lab: kill its processes, delete its namespaces, remove its folder."""
    spaces = [path for path in _entries(NETNS) if _lab_of(path) == name]
    inodes = {("net", path.stat().st_ino) for path in spaces}
    kill_members(inodes, f"{name}-")
    if spaces:
        subprocess.run(  # noqa: S603
            [_ip(), "-force", "-batch", "-"],
            input="".join(f"netns del {path.name}\n" for path in spaces),
            text=True,
            check=False,
            capture_output=True,
        )
    shutil.rmtree(FOLDERS / name, ignore_errors=True)


def sweep_stale_labs() -> list[str]:
    """End every lab whose owner is dead; return their names."""
    found = {_lab_of(path) for place in (NETNS, FOLDERS) for path in _entries(place)}
    stale = sorted(name for name in found if name is not None and _is_stale(name))
    for name in stale:
        demolish(name)
    return stale


def _is_stale(name: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    with contextlib.suppress(OSError):
        # Someone else's lab is theirs to clean up, unless we are root.
        if os.geteuid() not in (0, (FOLDERS / name).stat().st_uid):
            return False
    return started_at(int(match[2])) != int(match[3])


def _lab_of(path: Path) -> str | None:
    match = _NAME.fullmatch(path.name)
    return match[1] if match else None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _ip() -> str:
    return shutil.which("ip", path=SBIN) or "ip"


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
                yield int(name), int(fields[1])


def _is_member(pid: int, namespaces: Collection[tuple[str, int]], mark: str) -> bool:
    for kind in {kind for kind, _ in namespaces}:
        try:
            if (kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) in namespaces:
                return True
        except OSError:
            break  # someone else's, about to change its rights, or dead
    try:
        environ = b"\0" + _read(f"/proc/{pid}/environ") + b"\0"
    except OSError:
        return False
    end = "" if mark.endswith("-") else "\0"
    return f"\0{MARK}={mark}{end}".encode() in environ


def _read(path: str) -> bytes:
    # Many small files a look: pathlib would take longer than the kernel.
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _kill_and_wait(victims: Collection[int]) -> None:
    ends: list[int] = []
    poll = select.poll()
    try:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                end = os.pidfd_open(pid)
                ends.append(end)
                poll.register(end, select.POLLIN)
                signal.pidfd_send_signal(end, signal.SIGKILL)
        deadline = time.monotonic() + KILLED_AFTER
        waiting = len(ends)
        while waiting and time.monotonic() < deadline:
            for end, _ in poll.poll(100):
                poll.unregister(end)
                waiting -= 1
    finally:
        for end in ends:
            os.close(end)


if __name__ == "__main__":
    for lab in sys.argv[1:]:
        demolish(lab)
