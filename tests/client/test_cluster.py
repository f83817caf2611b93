"""A cluster object that cannot be opened, at a master in memory."""

# distributed runs on asyncio.
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import trio

import aemesh
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("distributed")


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_one_that_does_not_come_up_leaves_the_group_as_it_was(
    asynchronous: bool, tmp_path: Path
) -> None:
    """Shows: U5."""
    from aemesh.dask import AemeshCluster  # noqa: PLC0415

    api = MemoryControl(engines={"A": "dask"})  # which say no scheduler's address

    def fail() -> None:
        for name in ("A", "new"):
            with pytest.raises(KeyError, match="scheduler-address"):
                AemeshCluster(name, n_workers=1, state=tmp_path, weight=7)

    async def fail_within() -> None:
        for name in ("A", "new"):
            with pytest.raises(KeyError, match="scheduler-address"):
                await AemeshCluster(
                    name, n_workers=1, state=tmp_path, weight=7, asynchronous=True
                )

    def check() -> None:
        before = aemesh.Mesh(tmp_path).groups()
        if asynchronous:
            asyncio.run(fail_within())
        else:
            fail()
        assert aemesh.Mesh(tmp_path).groups() == before

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        with trio.fail_after(30):
            await trio.to_thread.run_sync(check)
        nursery.cancel_scope.cancel()
