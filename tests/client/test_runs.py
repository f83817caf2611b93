"""Durable runs over a real socket, with a ledger in memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from aemesh import limits
from aemesh.client.mesh import Mesh
from aemesh.client.runs import Runs
from aemesh.errors import (
    OtherWorkError,
    RunFullError,
    UnknownNameError,
    UnknownRunError,
    UsageError,
)
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.model.run import ItemId, Piece
from aemesh.testing.memory_control import MemoryControl

ONE, TWO, THREE = (ItemId(f"{number:032x}") for number in (1, 2, 3))


@pytest.fixture
async def runs(tmp_path: Path, nursery: trio.Nursery) -> Runs:
    api = MemoryControl(engines={"A": "dask", "B": "dask"})
    await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
    return Mesh(tmp_path).runs


async def asked(function: Any, *args: object, **kwargs: object) -> Any:
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


async def opened(runs: Runs, group: str = "A", **more: Any) -> Any:
    asks = {"fingerprint": "f", "title": "work", "total": 3, **more}
    return await asked(runs.open, group, "k", **asks)


async def test_what_a_client_commits_is_there_under_its_key(runs: Runs) -> None:
    """Shows: L3."""
    run = await opened(runs)
    large = b"y" * 3_000_000
    await asked(run.commit, [Piece(ONE, b"one", "first")])
    await asked(partial(run.commit, [Piece(TWO, large)], worker="office-1"))

    again = await opened(runs)

    items = await asked(lambda: list(again.items()))
    assert [(one.id, one.title, one.size, one.worker) for one in items] == [
        (ONE, "first", 3, ""),
        (TWO, "", len(large), "office-1"),
    ]
    values = await asked(lambda: list(again.values([TWO, THREE, ONE])))
    assert values == [large, None, b"one"]
    (view,) = await asked(runs.all)
    assert (view.items, view.total, view.title) == (2, 3, "work")


async def test_commits_are_followed_as_they_come(runs: Runs) -> None:
    run = await opened(runs)
    await asked(run.commit, [Piece(ONE, b"one")])

    def two() -> list[str]:
        items = run.items(follow=True)
        return [next(items).id, next(items).id]

    async with trio.open_nursery() as nursery:
        seen: list[str] = []
        nursery.start_soon(lambda: _into(seen, two))
        await trio.testing.wait_all_tasks_blocked()
        await asked(run.commit, [Piece(TWO, b"two")])
    assert seen == [ONE, TWO]


async def _into(seen: list[str], call: Any) -> None:
    seen += await asked(call)


async def test_many_values_come_in_their_order(runs: Runs) -> None:
    run = await opened(runs)
    ids = [ItemId(f"{number:032x}") for number in range(2500)]
    for at in range(0, 2500, limits.RUN_BATCH_ITEMS):
        part = ids[at : at + limits.RUN_BATCH_ITEMS]
        await asked(run.commit, [Piece(one, one.encode()) for one in part])

    values = await asked(lambda: list(run.values(reversed(ids))))

    assert values == [one.encode() for one in reversed(ids)]


async def test_what_cannot_be_is_told_with_its_own_error(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await opened(runs)
    for kind, call in (
        (OtherWorkError, partial(runs.open, "A", "k", fingerprint="g", title="else")),
        (UnknownNameError, partial(runs.open, "C", "k", fingerprint="g", title="")),
        (UsageError, partial(runs.open, "A", "no key", fingerprint="g", title="")),
        (UnknownRunError, partial(runs.show, "B", "k")),
        (UnknownRunError, partial(runs.drop, "A", "other")),
        (UsageError, partial(run.commit, [Piece(ItemId("no id"), b"")])),
        (UsageError, lambda: list(run.values(["no id"]))),
    ):
        with pytest.raises(kind):
            await asked(call)
    monkeypatch.setattr(limits, "RUN_VALUE_BYTES", 2)
    with pytest.raises(RunFullError):
        await asked(run.commit, [Piece(ONE, b"one")])
    await opened(runs, fresh=True)
    for call in (lambda: list(run.items()), lambda: list(run.values([ONE]))):
        with pytest.raises(UnknownRunError):
            await asked(call)


async def test_what_arrives_together_is_written_together() -> None:
    api = MemoryControl(engines={"A": "dask"})
    written: list[int] = []
    apply = api.clerk._ledger.apply
    api.clerk._ledger.apply = lambda orders: (
        written.append(len(orders))
        or apply(  # type: ignore[method-assign,func-returns-value]
            orders
        )
    )
    group: Any = "A"
    key: Any = "k"
    view = await api.clerk.open_run(
        group, key, fingerprint="f", title="", total=9, fresh=False
    )
    from aemesh.model.run import Commit, RunName  # noqa: PLC0415

    run = RunName(group, key, view.life)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            piece = Piece(ItemId(f"{number:032x}"), b"v")
            nursery.start_soon(api.clerk.apply, Commit(run, (piece,)))

    assert sum(written) == 50
    assert len(written) <= 3
