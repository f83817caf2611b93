"""MPI's own ``mpirun`` on the members of a group, with no ssh anywhere.

The group is held at its size while it runs.  mpirun starts its daemons by ``aemesh
rsh``; when a member goes, mpirun is ended, for it might wait for that member for ever.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aemesh.client.mpicheck import check_members
from aemesh.client.mpilauncher import find_launcher
from aemesh.client.script import see_through
from aemesh.errors import AemeshError, UnreachableError, UsageError, quoted
from aemesh.net.interfaces import network_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aemesh.client.hold import Hold
    from aemesh.client.mesh import Mesh
    from aemesh.model.view import HeldMember, HoldView

AUTO = "auto"
_INTERRUPTED = 130
# What the history says of a member that went.
_GONE = frozenset(("worker.lost", "worker.retired", "worker.left", "engine.broken"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is to run: the words that mpirun gets, on a group."""

    group: str
    words: tuple[str, ...]
    mpi: str | None = None  # openmpi, mpich, or the path of an mpirun
    subnet: str = AUTO  # "" for any


def run_mpi(
    mesh: Mesh,
    run: Run,
    *,
    say: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Run mpirun to its end; return its exit code.

    Raises `SettingsError` when something is missing here or on a member, and
    `UnreachableError` when a member went, which ends it.
    """
    launcher = find_launcher(run.mpi)
    with (
        mesh.hold(run.group) as hold,
        tempfile.TemporaryDirectory(prefix="aemesh-mpi-") as place,
    ):
        subnet, named = _subnet(run.subnet, hold.first), run.subnet != AUTO
        members = hold.members
        for text in check_members(
            mesh, run.group, members, launcher, run.words, subnet=subnet, named=named
        ):
            warn(text)
        slots = _slots(members)
        shown = ", ".join(f"{host} ({count})" for host, count in slots.items())
        say(f"{launcher} on {shown}")
        prelude = launcher.prelude(subnet, alone=named)
        agent = _write_agent(Path(place), mesh, run.group, prelude)
        hosts = Path(place) / "hosts"
        hosts.write_text("".join(launcher.host_line(*one) for one in slots.items()))
        told = launcher.variables(agent=agent, hosts=hosts, subnet=subnet)
        words = launcher.words(run.words, ours=hold.first.address)
        with _Watch(hold) as watch:
            ended = see_through(words, {**_environment(), **told}, end=watch.ending)
        if ended.interrupted:  # Open MPI's code is 0 then
            return ended.code or _INTERRUPTED
        if ended.code:
            _check_all_there(mesh, hold)
        return ended.code


def _environment() -> Mapping[str, str]:
    """Return our environment, for MPICH to send to all hosts; without what is ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith("AEMESH_")}


def _slots(members: Sequence[HeldMember]) -> Mapping[str, int]:
    """Return how many ranks each host takes, one for each core.

    By address, which needs no name service; two members on one machine are one host.
    """
    slots: Counter[str] = Counter()
    for one in members:
        # A colon is something else in MPICH's files.
        slots[one.name if ":" in one.address else one.address] += one.cores
    return slots


def _write_agent(place: Path, mesh: Mesh, group: str, prelude: str) -> Path:
    """Write the program that mpirun calls with a host and a command."""
    state = str(mesh.folder.parent)
    rsh = [sys.executable, "-P", "-m", "aemesh", "--state", state, "rsh"]
    rsh += ["--group", group]
    first = shlex.quote(prelude) if prelude else ""
    agent = place / "agent"
    agent.write_text(
        f'#!/bin/sh\nhost=$1\nshift\nexec {shlex.join(rsh)} -- "$host" {first} "$@"\n'
    )
    agent.chmod(0o700)
    return agent


def _subnet(wanted: str, held: HoldView) -> str:
    """Return the network that ranks are to use, "" for any.

    That of our own address, if all members are in it as well.
    """
    if wanted != AUTO:
        return _checked(wanted) if wanted else ""
    ours = network_of(held.address)
    if not ours:
        return ""
    net = ipaddress.ip_network(ours)
    inside = all(ipaddress.ip_address(one.address) in net for one in held.members)
    return ours if inside else ""


def _checked(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        msg = f"--subnet {quoted(text)} is no network"
        raise UsageError(msg, why=str(error), hint="`--subnet 10.0.0.0/24`") from None


class _Watch:
    """Looks who is in the group; `ending` is readable once one has gone."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self.ending, self._writing = os.pipe()
        # It waits for the master, and must not hold up the end.
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        there = {one.label for one in self._hold.members}
        with suppress(AemeshError):  # then group or master are gone, and so are jobs
            for view in self._hold.changes():
                if not there <= {one.label for one in view.members}:
                    break
        with suppress(OSError):
            os.write(self._writing, b"!")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.close()
        self._thread.join()
        os.close(self.ending)
        os.close(self._writing)


def _check_all_there(mesh: Mesh, hold: Hold) -> None:
    """Raise `UnreachableError` if a member went, with what the history says of it."""
    group = hold.first.group
    with mesh.hold(group) as now:
        there = {one.label for one in now.members}
    gone = [one.name for one in hold.members if one.label not in there]
    if not gone:
        return
    history = mesh.group_status(group).history
    why = [e.text for e in history if e.kind in _GONE and e.worker in gone]
    names = ", ".join(gone)
    msg = f"{names} went from group {group} in the midst of the run"
    raise UnreachableError(msg, why="; ".join(why[-3:]) or None)
