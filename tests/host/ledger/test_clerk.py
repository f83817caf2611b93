"""Orders that many bring at one time: whoever is told "written" can rely on it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from aemesh.errors import UnknownRunError
from aemesh.host.ledger.clerk import Clerk
from aemesh.host.ledger.ledger import Ledger, memory_ledger
from aemesh.model.names import GroupName
from aemesh.model.run import Commit, ItemId, Piece, RunKey, RunName

A, K = GroupName("A"), RunKey("k")
ONE, TWO, THREE = (ItemId(f"{number:032x}") for number in (1, 2, 3))


@pytest.fixture
def ledger() -> Ledger:
    return memory_ledger(wall=lambda: 1.0)


async def begun(clerk: Clerk, *, fresh: bool = False) -> RunName:
    view = await clerk.open_run(
        A, K, fingerprint="f", title="work", total=3, fresh=fresh
    )
    return RunName(A, K, view.life)


def order(run: RunName, item: ItemId) -> Commit:
    return Commit(run, (Piece(item, b"value"),))


async def test_who_is_told_that_it_is_written_has_it_though_the_writer_was_cancelled(
    ledger: Ledger,
) -> None:
    """Shows: L3: what counts is on the disk."""
    clerk = Clerk(ledger)
    run = await begun(clerk)
    scope = trio.CancelScope()
    told: list[ItemId] = []

    async def writes(item: ItemId) -> None:
        await clerk.apply(order(run, item))
        told.append(item)

    async def writes_for_all() -> None:
        with scope:
            await writes(ONE)

    async with trio.open_nursery() as group:
        async with clerk._turn:
            for start in (writes_for_all, lambda: writes(TWO), lambda: writes(THREE)):
                group.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
        scope.cancel()  # it has the turn now, and has written nothing yet

    assert told == [TWO, THREE]
    assert await clerk.known(run, [ONE, TWO, THREE]) == [TWO, THREE]


async def test_a_bug_in_one_write_is_no_yes_for_those_who_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clerk = Clerk(ledger)
    run = await begun(clerk)
    apply, broken = ledger.apply, [True]

    def breaks_once(orders: list[Commit]) -> object:
        if broken:
            broken.pop()
            raise RuntimeError("can't start new thread")
        return apply(orders)

    monkeypatch.setattr(ledger, "apply", breaks_once)

    async def breaks() -> None:
        with pytest.raises(RuntimeError):
            await clerk.apply(order(run, ONE))

    async with trio.open_nursery() as group, clerk._turn:
        group.start_soon(breaks)
        await trio.testing.wait_all_tasks_blocked()
        group.start_soon(clerk.apply, order(run, TWO))
        await trio.testing.wait_all_tasks_blocked()

    assert await clerk.known(run, [ONE, TWO]) == [TWO]


async def test_who_follows_a_run_hears_when_it_is_begun_anew(ledger: Ledger) -> None:
    clerk = Clerk(ledger)
    run = await begun(clerk)

    async def follow() -> None:
        with pytest.raises(UnknownRunError):
            async for _ in clerk.items(run, 0, follow=True):
                pass

    with trio.fail_after(5):
        async with trio.open_nursery() as group:
            group.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            assert (await begun(clerk, fresh=True)).life > run.life
