"""The Avahi of a Linux desktop on a host of the lab: a D-Bus and a daemon of its own.

It shows whether programs that are not ours see what we announce:

    async with open_avahi(host) as avahi:
        lines = await avahi.browse("_aemesh-worker._tcp")
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.testing.lab import wait_for
from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_host import Host
from aemesh.testing.lab_needs import has_many_users, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trio


# The daemon says it is ready after it has probed for its host name: about a second.
UP_WITHIN = 15.0
READY = "Server startup complete"

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
_DAEMON = """\
[server]
use-ipv4=yes
use-ipv6=yes
allow-interfaces=eth0
[wide-area]
enable-wide-area=no
[publish]
publish-hinfo=no
publish-workstation=no
"""
_ROOTS = {"passwd": "avahi:x:0:0:", "group": "avahi:x:0:"}


@dataclass(frozen=True, slots=True)
class Avahi:
    """A host's Avahi, as its tools see it."""

    host: Host

    async def browse(self, service: str) -> list[str]:
        """Return what ``avahi-browse -rpt`` prints: ``+`` seen and ``=`` resolved."""
        # As root: in a user namespace the bus cannot tell who an ordinary user is.
        done = await self.host.run(
            [program("avahi-browse"), "-rpt", service], root=True
        )
        return done.stdout.splitlines()


@asynccontextmanager
async def open_avahi(host: Host) -> AsyncIterator[Avahi]:
    """Run a D-Bus and an Avahi daemon on a host as long as the block lasts."""
    bus, daemon, log = (
        host.folder / name for name in ("bus.conf", "avahi.conf", "avahi.log")
    )
    if not has_many_users():
        _make_avahi_root(host)
    bus.write_text(_BUS)
    daemon.write_text(_DAEMON)
    await host.run(["mkdir", "-p", "/run/dbus", "/run/avahi-daemon"], root=True)
    bus_argv = [program("dbus-daemon"), f"--config-file={bus}", "--nofork"]
    avahi_argv = [program("avahi-daemon"), "-f", str(daemon)]
    avahi_argv += ["--no-drop-root", "--no-chroot", "--no-rlimits"]
    with log.open("wb") as output:
        async with host.open_process(bus_argv, root=True, stderr=output):
            await wait_for(
                lambda: _succeeds(host, ["test", "-S", "/run/dbus/system_bus_socket"]),
                within=UP_WITHIN,
                what=f"a D-Bus on {host.name}",
            )
            async with host.open_process(
                avahi_argv, root=True, stdout=output, stderr=output
            ) as process:
                await wait_for(
                    lambda: _is_ready(host, log, process),
                    within=UP_WITHIN,
                    what=f"an Avahi daemon on {host.name} that says {READY!r}",
                )
                yield Avahi(host)


def _is_ready(host: Host, log: Path, process: trio.Process) -> bool:
    said = log.read_text(errors="replace")
    if process.returncode is not None:
        what = f"the Avahi daemon on {host.name} did not come up"
        raise LabError(what, why=said)
    return READY in said


def _make_avahi_root(host: Host) -> None:
    """Give the account that the daemon insists on the only number there is."""
    for name in ("passwd", "group"):
        # The file is written, not replaced: the host has this very one mounted.
        file = host.folder / "etc" / name
        file.write_text(
            re.sub(r"^avahi:x:[\d:]+", _ROOTS[name], file.read_text(), flags=re.M)
        )


async def _succeeds(host: Host, argv: list[str]) -> bool:
    return (await host.run(argv, root=True, check=False)).returncode == 0
