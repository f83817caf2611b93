"""A cluster object at a master in memory: opened, closed, left behind."""

# distributed runs on asyncio.
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import aemesh
from aemesh.errors import UsageError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.model.group import Demand
from aemesh.testing.memory_control import MemoryControl
from tests.client.local_dask import local_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(1, protocol="tcp://") as cluster:
        yield cluster.scheduler_address


async def at_master(
    api: MemoryControl, state: Path, call: Callable[[], object]
) -> None:
    """Call it in a thread while a master answers in this state directory."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, state / "master" / SOCKET_FILE)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(call)
        nursery.cancel_scope.cancel()


def of_dask(address: str) -> MemoryControl:
    return MemoryControl(
        engines={"A": "dask"},
        demands={"A": Demand(min=0, max=None)},
        env={"DASK_SCHEDULER_ADDRESS": address},
    )


def bounds(api: MemoryControl) -> tuple[int, int | None]:
    return api.demands["A"].min, api.demands["A"].max


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

    await at_master(api, tmp_path, check)


LEFT = """
import asyncio, sys
from aemesh.dask import AemeshCluster
how, state = sys.argv[1:]
async def open():
    return [await AemeshCluster(g, n_workers=1, state=state, asynchronous=True)
            for g in ("A", "new")]
if how == "asynchronous":
    left = asyncio.run(open())
else:
    left = [AemeshCluster(g, n_workers=1, state=state) for g in ("A", "new")]
if how == "client":
    assert left[0].get_client().submit(pow, 2, 3).result(timeout=20) == 8
"""


@pytest.mark.parametrize("how", ["plain", "client", "asynchronous"])
async def test_what_a_script_leaves_behind_is_closed(
    address: str, tmp_path: Path, how: str
) -> None:
    api = of_dask(address)
    async with trio.open_nursery() as nursery:
        socket = tmp_path / "master" / SOCKET_FILE
        await nursery.start(serve_control, api, socket)
        with trio.fail_after(60):
            argv = [sys.executable, "-c", LEFT, how, str(tmp_path)]
            done = await trio.run_process(argv, capture_stderr=True)
        nursery.cancel_scope.cancel()

    assert sorted(api.engines) == ["A"]
    assert bounds(api) == (0, None)
    assert b"Traceback" not in done.stderr


async def test_a_closed_cluster_says_so(address: str, tmp_path: Path) -> None:
    from aemesh.dask import AemeshCluster  # noqa: PLC0415

    def use() -> None:
        cluster = AemeshCluster("A", state=tmp_path)
        cluster.close()
        with pytest.raises(UsageError, match="it is closed"):
            cluster.scale(2)

    await at_master(of_dask(address), tmp_path, use)


async def test_one_whose_scheduler_is_lost_says_so(tmp_path: Path) -> None:
    from aemesh.dask import AemeshCluster  # noqa: PLC0415

    dask = {
        "protocol": "tcp://",
        "dashboard_address": "127.0.0.1:0",
        "processes": False,
    }
    there = distributed.LocalCluster(n_workers=1, **dask)
    api = of_dask(there.scheduler_address)

    def use() -> None:
        cluster = AemeshCluster("A", n_workers=1, state=tmp_path)
        adaptive = cluster.adapt(minimum=0, maximum=1, interval="10ms")
        there.close()
        while cluster.status.name == "running":
            threading.Event().wait(0.001)

        assert repr(cluster) == "AemeshCluster(A, its scheduler is lost)"
        assert cluster._repr_html_().startswith("<p>AemeshCluster(A, its")
        assert (len(cluster.workers), cluster.dashboard_link) == (0, "")
        assert adaptive.state == "stopped"
        with pytest.raises(UsageError, match="it is failed"):
            cluster.scale(1)
        cluster.close()
        assert cluster.status.name == "closed"

    await at_master(api, tmp_path, use)
    assert bounds(api) == (0, None)


async def test_the_last_of_two_clusters_gives_the_group_back(
    address: str, tmp_path: Path
) -> None:
    from aemesh.dask import AemeshCluster  # noqa: PLC0415

    api = of_dask(address)
    before = api.demands["A"]

    def opened(**wishes: Any) -> Any:
        return AemeshCluster("A", state=tmp_path, **wishes)

    def use() -> None:
        for first_goes_first in (True, False):
            one = opened(n_workers=1, settings={"a": "1"})
            two = opened(n_workers=2, weight=5, settings={"a": "2", "b": "2"})
            first, last = (one, two) if first_goes_first else (two, one)
            during = api.demands["A"]
            first.close()
            assert api.demands["A"] == during != before
            last.close()
            assert api.demands["A"] == before

    await at_master(api, tmp_path, use)


async def test_a_group_that_a_cluster_opened_is_there_for_those_of_others(
    address: str, tmp_path: Path
) -> None:
    from aemesh.dask import AemeshCluster  # noqa: PLC0415

    api = of_dask(address)

    def other_process() -> None:
        argv = [sys.executable, "-c", LEFT, "plain", str(tmp_path)]
        subprocess.run(argv, timeout=50, check=True)

    def use() -> None:
        with AemeshCluster("new", n_workers=2, state=tmp_path):
            other_process()
            assert sorted(api.engines) == ["A", "new"]
            assert bounds(api) == (0, None)
        assert sorted(api.engines) == ["A"]

        gone = AemeshCluster("new", state=tmp_path)
        with AemeshCluster("new", state=tmp_path):
            gone.close()
            assert "new" in api.engines
        assert "new" not in api.engines

    await at_master(api, tmp_path, use)
