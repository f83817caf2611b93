"""What the lab needs from the machine: programs, rights, a readable interpreter."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from pathlib import Path

from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_sweep import SBIN

# (program, Debian package that has it)
NEEDS = (
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("env", "coreutils"),
    ("cat", "coreutils"),
    ("sh", "dash"),
)
# What only some tests ask for.
MORE_NEEDS = (
    ("avahi-browse", "avahi-utils"),
    ("avahi-daemon", "avahi-daemon"),
    ("dbus-daemon", "dbus-daemon"),
    ("kadmin.local", "krb5-admin-server"),
    ("kdb5_util", "krb5-kdc"),
    ("kinit", "krb5-user"),
    ("krb5kdc", "krb5-kdc"),
    ("ping", "iputils-ping"),
)

# Debian gives 60000-64999 out by hand only; a lab has at most 253 hosts.
FIRST_UID = 64000

# <linux/capability.h>
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21


@cache
def program(name: str) -> str:
    """Return the absolute path of a program, or say which package to install."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if path is None:
        package = dict(NEEDS + MORE_NEEDS).get(name, name)
        what = f"the lab needs the program {name}"
        hint = f"apt-get install {package}"
        raise LabError(what, why="it is not on this machine", hint=hint)
    return path


def can_build() -> bool:
    """Whether this process may make network and mount namespaces as it is."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    (effective,) = (
        int(line.split()[1], 16)
        for line in status.splitlines()
        if line.startswith("CapEff:")
    )
    return all(effective >> cap & 1 for cap in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


def check_needs() -> None:
    """Say clearly what is missing, if anything is."""
    for name, _ in NEEDS:
        program(name)
    if not can_build():
        what = "a lab cannot be built by this process"
        hint = "run it beneath `python -m aemesh.testing.lab -- COMMAND`"
        raise LabError(what, why="it may not make network namespaces", hint=hint)


def has_many_users() -> bool:
    """Whether other users exist here; in ``unshare -Ur`` there is only one."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= FIRST_UID and inside + count > FIRST_UID + 255:
            return True
    return False


def closed_ancestor(path: Path) -> Path | None:
    """Return the first folder above a path that an ordinary user cannot enter."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


def base_interpreter() -> Path:
    """Return the folder of the interpreter that our environment was made with."""
    return Path(sys.base_prefix).resolve()
