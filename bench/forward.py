"""What comes through a forwarded port, against the same port reached directly."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aemesh.testing.lab import open_lab
from bench.table import Measured, Row
from bench.watched import open_watched

if TYPE_CHECKING:
    from aemesh.testing.lab import Host

_COUNT = 1 << 30  # bytes: some seconds at most, and nothing of the start is in it
_BUDGET = 2.0  # times: half of what comes through directly
_ENTRY = "[aemesh.engines]\nflow = bench.ends.flow_engine:ENGINE\n"


async def forwarding(times: int) -> list[Row]:
    """Send and take a GiB over TLS, directly and through the master, in turns."""
    took: dict[tuple[str, str], list[float]] = {}
    async with open_lab(["head", "near", "far", "peer"]) as lab:
        head, near, far, peer = lab.hosts
        argv = [*head.aemesh, "master", "--group", "A", "--engine", "flow"]
        async with AsyncExitStack() as stack:
            master = await stack.enter_async_context(
                open_watched(head, [*argv, "--accept-new"], env=install(head))
            )
            await master.wait_line("group A is ready")
            for host, forward in ((near, "no"), (far, "yes")):
                words = ("worker", "--accept-first-master", "--forward", forward)
                await stack.enter_async_context(
                    open_watched(host, (*host.aemesh, *words))
                )
                await master.wait_line(f"{host.name} serves A")
            places = await reached(head)
            for _ in range(times):
                for what in ("send", "take"):
                    for name, place in places.items():
                        seconds = await ask(peer, place, what)
                        took.setdefault((what, name), []).append(seconds)
    told = {"send": "from a member", "take": "to a member"}
    return [
        Row(
            f"a GiB {told[what]} over TLS, through its master",
            Measured(tuple(took[what, "far"]), "s"),
            Measured(tuple(took[what, "near"]), "s"),
            "directly",
            _BUDGET,
        )
        for what in ("send", "take")
    ]


def install(host: Host) -> dict[str, str]:
    """Install the bench's engine on a host; return the variables that show it."""
    place = host.home / "plugins"
    about = place / "bench_flow-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: bench-flow\nVersion: 1\n"
    )
    (about / "entry_points.txt").write_text(_ENTRY)
    return {"PYTHONPATH": f"{host.environment()['PYTHONPATH']}:{place}"}


async def reached(head: Host) -> dict[str, str]:
    """Return where each member's port is reached, as the engine said."""
    done = await head.run([*head.aemesh, "events"])
    words = [line.split() for line in done.stdout.splitlines() if " reach " in line]
    return {line[-2]: line[-1] for line in words}


async def ask(peer: Host, place: str, what: str) -> float:
    """Return how long a GiB takes."""
    host, _, port = place.rpartition(":")
    script = "/mnt/aemesh/checkout/bench/ends/flow.py"
    argv = [peer.python, script, "ask", host, port, what, str(_COUNT)]
    return float((await peer.run(argv)).stdout)
