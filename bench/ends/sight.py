"""Two ends of discovery: ``sight announce COUNT`` or ``sight browse``.

Each prints, for every node, its name and the moment (on the machine's own clock) just
before it was announced, or when its announcement was believed.
"""

# ruff: noqa: T201

from __future__ import annotations

import sys
import time

import trio

from aemesh.host.keys.keystore import Identity
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.discovery import open_discovery
from aemesh.net.presence import Presence
from aemesh.net.wallclock import new_run
from aemesh.policy.discovery import New, Sightings

# The interfaces are ready, and IPv6 has looked for twins, by then.
_READY_AFTER = 3.0
_EVERY = 0.2


async def announce(count: int) -> None:
    """Announce new nodes, one after the other."""
    async with open_discovery() as discovery:
        await trio.sleep(_READY_AFTER)
        for number in range(count):
            identity = Identity.ephemeral(f"node-{number}")
            presence = Presence(
                role=Role.WORKER,
                name=NodeName(f"node-{number}"),
                key=identity.public,
                mode=Mode.LEAP,
                cores=2,
                memory=2**33,
                port=7472,
                run=new_run(),
            )
            now = time.monotonic()
            await discovery.announce(presence, sign=identity.sign)
            print("at", presence.name, now, flush=True)
            await trio.sleep(_EVERY)
        print("done", flush=True)
        await trio.sleep(1)


async def browse() -> None:
    """Tell of nodes that are new, until killed."""
    sightings = Sightings(set())
    async with (
        open_discovery() as discovery,
        discovery.browse(Role.WORKER, sightings) as heard,
    ):
        print("ready", flush=True)
        async for news in heard:
            if isinstance(news, New):
                name, now = news.announcement.name, time.monotonic()
                print("at", name, now, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "announce":
        trio.run(announce, int(sys.argv[2]))
    else:
        trio.run(browse)
