"""The desk where a person is asked, while others may decide elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from aemesh.host import trustfiles
from aemesh.host.keystore import Identity
from aemesh.host.trustdesk import TrustDesk
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Mode, Peer, Role, TrustRequest
from aemesh.policy.trust import TrustPolicy

if TYPE_CHECKING:
    from pathlib import Path

NAME = NodeName("office-1")


async def test_a_question_is_withdrawn_when_it_was_answered_elsewhere(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    del autojump_clock
    tmp_path.chmod(0o700)
    key = Identity.ephemeral(NAME).public
    desk = TrustDesk(TrustPolicy(role=Role.MASTER), folder=tmp_path, wall=time.time)
    asked, withdrawn = trio.Event(), trio.Event()

    async def ask(_request: TrustRequest) -> bool | None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run, ask)
        desk.judge(
            Peer(
                role=Role.WORKER,
                name=NAME,
                key=key,
                mode=Mode.LEAP,
                address="10.0.0.2:1",
            )
        )
        await asked.wait()
        line = KnownPeer(name=NAME, key=key, via="accept", added="20260101")
        trustfiles.add(tmp_path, Role.WORKER, line)  # as `aemesh trust accept` does
        with trio.fail_after(10):
            await withdrawn.wait()
        assert desk.knows(key.key_id)
        assert not desk.policy.declined
        nursery.cancel_scope.cancel()
