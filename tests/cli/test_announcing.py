"""What a node hears on the network, with the keys that it knows."""

from __future__ import annotations

from contextlib import aclosing
from types import SimpleNamespace

from aemesh.cli.announcing import Finder
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Role, TrustBook
from aemesh.policy.trust import TrustPolicy
from aemesh.testing.memory_discovery import MemorySegment, virtual_clock


async def test_a_flood_of_announcements_goes_through_the_known_keys_once(
    autojump_clock, monkeypatch
) -> None:
    """Each asked for the fingerprint of every known key.  Threat: 61."""
    asked = 0

    def asking(key: PublicKey) -> KeyId:
        nonlocal asked
        asked += 1
        return KeyId.of_blob(key.blob)

    monkeypatch.setattr(PublicKey, "key_id", property(asking))
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(100)]
    lines = (KnownPeer(NodeName("w"), key, via="", added="") for key in keys)
    desk = TrustDesk(TrustPolicy(role=Role.MASTER), folder=None, wall=virtual_clock)
    desk.memory.put(TrustBook(known=tuple(lines)))
    segment = MemorySegment()
    for number in range(50):
        segment.say(Role.WORKER, f"forged-{number}", {})

    async with segment.open() as discovery:
        finder = Finder(Role.WORKER, SimpleNamespace(desk=desk), discovery)
        async with aclosing(finder.news()) as news:
            for _ in range(50):
                await anext(news)

    assert asked == len(keys)
