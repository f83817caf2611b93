"""The desk where a person is asked, while others may decide elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh.host.keys.keystore import Identity
from aemesh.host.trust import trustfiles
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    Role,
    Terms,
    TrustRequest,
)
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


def peer(name: str, *, code: str = "", address: str = "10.0.0.2:1") -> Peer:
    key = Identity.ephemeral(name).public
    return Peer(Role.WORKER, NodeName(name), key, Mode.LEAP, address, code=code)


async def test_a_new_meeting_asks_anew_with_its_own_code(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    """Shows: T5: the words of a meeting that is over are worth nothing."""
    del autojump_clock
    tmp_path.chmod(0o700)
    desk = TrustDesk(TrustPolicy(role=Role.MASTER), folder=tmp_path, wall=time.time)
    asked: list[str] = []

    async def ask(request: TrustRequest) -> bool | None:
        asked.append(request.code)
        if request.code == "old-old-old-old":
            await trio.sleep_forever()
        return True

    first = peer("office-1", code="old-old-old-old")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run, ask)
        desk.judge(first)
        await trio.sleep(1)
        desk.judge(replace(first, code="new-new-new-new"))
        with trio.fail_after(10):
            while not desk.knows(first.key_id):
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

    assert asked == ["old-old-old-old", "new-new-new-new"]
    assert desk.book.known[0].via == "sas"


def test_who_asks_nobody_shows_each_code_once(tmp_path: Path, caplog):
    tmp_path.chmod(0o700)
    policy = TrustPolicy(role=Role.MASTER, accept_new=True)
    desk = TrustDesk(policy, folder=tmp_path, wall=time.time)
    one, two = peer("one", code="a-a-a-a"), peer("two", code="b-b-b-b")

    with caplog.at_level("INFO"):
        for _ in range(5):
            desk.judge(one)
            desk.judge(two)

    assert [r.getMessage() for r in caplog.records] == [
        'one: both sides show "a-a-a-a"',
        'two: both sides show "b-b-b-b"',
    ]


async def test_a_line_that_ends_in_time_is_acted_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    """Nobody writes anything at that moment: whoever is linked is judged again."""
    del autojump_clock
    tmp_path.chmod(0o700)
    start = 1_800_000_000.0
    desk = TrustDesk(
        TrustPolicy(role=Role.MASTER),
        folder=tmp_path,
        wall=lambda: start + trio.current_time(),
    )
    known = peer("office-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run, None)
        ends_at = start + trio.current_time() + 100
        line = KnownPeer(
            known.name, known.key, "accept", "20260101", terms=Terms(expires_at=ends_at)
        )
        trustfiles.add(tmp_path, Role.WORKER, line)
        before = desk.judge(known)
        with trio.fail_after(102):
            while desk.judge(known).decision is Decision.OK:
                await desk.wait_change()
        nursery.cancel_scope.cancel()

    assert before.reason is Reason.KNOWN
    assert desk.judge(known).reason is Reason.EXPIRED
