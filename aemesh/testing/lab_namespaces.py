"""The ground a lab stands on: a switch and hosts made of kernel namespaces.

Nothing here is async: building takes a tenth of a second in a thread, and ending a lab
must not depend on a scheduler that is being cancelled.

Everything lives in namespaces: the switch (a bridge) in one of its own, each host in
a network, a mount, a UTS and an IPC namespace, kept alive by a holder process.  A
program enters a host by a chain of execs that never forks, so that the pid we get is
the program's own.  When we die, the holders' and the guard's input ends: the holders
go, and the guard sweeps up (lab_sweep.py).
"""

from __future__ import annotations

import compileall
import contextlib
import itertools
import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aemesh
from aemesh.testing import lab_sweep
from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_needs import (
    FIRST_UID,
    base_interpreter,
    check_needs,
    closed_ancestor,
    has_many_users,
    program,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(aemesh.__file__).resolve().parent.parent
USER = "user"
IPV4_NET = "10.77.0"
IPV6_NET = "fd77:"

# A /24 has 254 addresses; one is left for a router that a test may add.
MOST_HOSTS = 253

# No host can have this name.
STICK = "stick_"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_SERIAL = itertools.count(1)
_SCRIPT = Path(__file__).with_name("lab_host.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where one host lives: its names, addresses, folder and holder."""

    name: str
    mark: str
    ipv4: str
    ipv6: str
    port: str
    uid: int
    folder: Path
    holder: int

    @property
    def home(self) -> Path:
        """The home of the host's user."""
        return self.folder / "home"


@dataclass(slots=True)
class Ground:
    """All that was made for one lab."""

    name: str
    many_users: bool
    seats: list[Seat] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The lab's folder; each host sees only its own part of it."""
        return lab_sweep.FOLDERS / self.name

    @property
    def stick(self) -> Path:
        """What every host sees as ``/media/stick``: a USB stick that goes round."""
        return self.folder / STICK

    @property
    def switch(self) -> str:
        """The name of the switch's network namespace."""
        return self.name

    def demolish(self) -> None:
        """End everything that belongs to the lab; safe to call twice."""
        for child in self.children:
            child.kill()
        lab_sweep.demolish(self.name)
        for child in self.children:
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self.children.clear()


def python_in_hosts() -> str:
    """Return the path of the interpreter, as hosts see it."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return "/mnt/aemesh/venv/bin/python"


def build(names: Sequence[str]) -> Ground:
    """Make a lab with these hosts; all of it is gone again if that goes wrong."""
    check_needs()
    _check_names(names)
    lab_sweep.sweep_stale_labs()
    pid = os.getpid()
    name = f"ae{pid}-{lab_sweep.started_at(pid)}-{next(_SERIAL)}"
    ground = Ground(name, has_many_users())
    try:
        ground.folder.mkdir()
        ground.folder.chmod(0o755)
        ground.stick.mkdir()
        ground.stick.chmod(0o1777)
        _post_guard(ground)
        _compile_checkout()
        _make_links(ground, names)
        _make_hosts(ground, names)
    except BaseException:
        ground.demolish()
        raise
    return ground


def run_tool(argv: Sequence[str], text: str = "") -> None:
    """Run one of the tools in ``NEEDS``; what it says on errors becomes ours."""
    done = subprocess.run(  # noqa: S603
        [program(argv[0]), *argv[1:]],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        what = f"`{' '.join(argv)}` ended with {done.returncode}"
        raise LabError(what, why=done.stderr.strip() or None)


def _check_names(names: Sequence[str]) -> None:
    if not 1 <= len(names) <= MOST_HOSTS:
        what = f"a lab has 1 to {MOST_HOSTS} hosts, not {len(names)}"
        raise LabError(what)
    for name in names:
        if not _NAME.fullmatch(name) or name == "localhost":
            what = f"{name!r} is no host name for the lab"
            raise LabError(what, why="it takes 1 to 40 of a-z, 0-9 and -")
    if len(set(names)) < len(names):
        what = f"two hosts of the lab have one name: {', '.join(names)}"
        raise LabError(what)


def _post_guard(ground: Ground) -> None:
    """Start the process that cleans up if we cannot: it waits for our end."""
    script = str(Path(lab_sweep.__file__).resolve())
    guard = subprocess.Popen(  # noqa: S603
        [
            *(program("sh"), "-c", 'read -r _; exec "$@"', "lab-guard"),
            *(sys.executable, "-I", "-S", script, ground.name),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": lab_sweep.SBIN},
        cwd="/",
        start_new_session=True,
    )
    ground.children.append(guard)


def _compile_checkout() -> None:
    """Write .pyc files, which hosts cannot: start-up would pay for it each time."""
    package = CHECKOUT / "aemesh"
    if os.access(package, os.W_OK):
        compileall.compile_dir(str(package), quiet=2)


def _make_links(ground: Ground, names: Sequence[str]) -> None:
    numbered = list(enumerate(names, start=1))
    run_tool(
        ["ip", "-batch", "-"],
        f"netns add {ground.switch}\n"
        + "".join(f"netns add {ground.name}-{name}\n" for name in names)
        + "".join(
            f"link add eth0 netns {ground.name}-{name} type veth"
            f" peer name port{number} netns {ground.switch}\n"
            for number, name in numbered
        ),
    )
    # No IPv6 on the switch: its own chatter would be heard by the hosts.
    quiet = (
        "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do"
        ' [ ! -e "$f" ] || echo 1 > "$f"; done;'
    )
    run_tool(
        [
            *("nsenter", f"--net={lab_sweep.NETNS / ground.switch}", "--"),
            *(program("sh"), "-c", f'{quiet} exec "$0" -batch -', program("ip")),
        ],
        # No snooping: multicast reaches everybody at once, without a querier.
        "link add br0 type bridge mcast_snooping 0 forward_delay 0\n"
        "link set br0 up\n"
        + "".join(f"link set port{number} master br0 up\n" for number, _ in numbered),
    )


def _make_hosts(ground: Ground, names: Sequence[str]) -> None:
    hosts_file = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" + "".join(
        f"{IPV4_NET}.{number} {name}\n{IPV6_NET}:{number} {name}\n"
        for number, name in enumerate(names, start=1)
    )
    holders = [
        _start_holder(ground, number, name, hosts_file)
        for number, name in enumerate(names, start=1)
    ]
    for seat, holder in holders:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            what = f"the host {seat.name} did not come up"
            said = holder.stderr.read().decode(errors="replace").strip()
            raise LabError(what, why=said)
        ground.seats.append(seat)


def _start_holder(
    ground: Ground, number: int, name: str, hosts_file: str
) -> tuple[Seat, subprocess.Popen[bytes]]:
    uid = FIRST_UID + number
    folder = ground.folder / name
    _furnish(folder, name, uid, hosts_file)
    if ground.many_users:
        os.chown(folder / "home", uid, uid)
    base = base_interpreter()
    cover = closed_ancestor(base / "bin") if ground.many_users else None
    mark = f"{ground.name}-{name}"
    holder = subprocess.Popen(  # noqa: S603
        [
            *(program("nsenter"), f"--net={lab_sweep.NETNS / mark}", "--"),
            *(program("unshare"), "--mount", "--uts", "--ipc"),
            *("--propagation=private", "--", program("sh"), str(_SCRIPT)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
        umask=0o022,
        env={
            "PATH": lab_sweep.SBIN,
            "NAME": name,
            "IPV4": f"{IPV4_NET}.{number}",
            "IPV6": f"{IPV6_NET}:{number}",
            "FOLDER": str(folder),
            "STICK": str(ground.stick),
            "CHECKOUT": str(CHECKOUT),
            "VENV": "" if sys.prefix == sys.base_prefix else sys.prefix,
            "BASE": str(base),
            "COVER": str(cover or ""),
            "PYTHON": python_in_hosts(),
            "USER_ID": str(uid),
            "MANY_USERS": "yes" if ground.many_users else "no",
        },
    )
    ground.children.append(holder)
    seat = Seat(
        name=name,
        mark=mark,
        ipv4=f"{IPV4_NET}.{number}",
        ipv6=f"{IPV6_NET}:{number}",
        port=f"port{number}",
        uid=uid,
        folder=folder,
        holder=holder.pid,
    )
    return seat, holder


def _furnish(folder: Path, name: str, uid: int, hosts_file: str) -> None:
    """Write what the host has of its own, beneath its folder."""
    for part in (folder, folder / "etc", folder / "home", folder / "stage"):
        part.mkdir()
        part.chmod(0o755)  # whatever our own umask says
    (folder / "home").chmod(0o700)
    etc = folder / "etc"
    # Our line comes first: the number may have a name on this machine already.
    account = f"{USER}:x:{uid}:{uid}:{USER} of {name}:{folder / 'home'}:/bin/sh\n"
    (etc / "passwd").write_text(account + Path("/etc/passwd").read_text())
    (etc / "group").write_text(f"{USER}:x:{uid}:\n" + Path("/etc/group").read_text())
    (etc / "hosts").write_text(hosts_file)
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    # No name server: programs that ask for one would wait for minutes.
    (etc / "resolv.conf").write_text("")
    for file in etc.iterdir():
        file.chmod(0o644)
