"""A Dask client of a group: a real scheduler, over TLS, with credentials of its own."""

from __future__ import annotations

import re
import sys
import threading
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

import aemesh
from aemesh.client.credentials import Credentials
from aemesh.errors import EngineError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.model.group import Demand
from aemesh.model.names import GroupName
from aemesh.model.view import ConnectView
from aemesh.testing.memory_control import MemoryControl

distributed = pytest.importorskip("distributed")

_TLS = "DASK_DISTRIBUTED__COMM__TLS"
ENV = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    f"{_TLS}__CA_FILE": "{tls}/ca.pem",
    f"{_TLS}__CLIENT__CERT": "{tls}/cert.pem",
    f"{_TLS}__CLIENT__KEY": "{tls}/key.pem",
}


def _identity(group: aemesh.Group) -> str:
    """Return the type of what a client of the group talks to."""
    with group.client(timeout=10, set_as_default=False) as client:
        found = client.scheduler_info()["type"]
    group.close()
    assert isinstance(found, str)
    return found


async def test_a_client_reaches_a_scheduler_that_demands_our_certificate(
    tmp_path: Path,
):
    """Shows: E6."""
    api = MemoryControl(engines={"A": "dask"}, env=dict(ENV))
    signed = Credentials(tmp_path, partial(api.certify, GroupName("A")))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        scheduler = await trio.lowlevel.open_process(
            [sys.executable, "-m", "distributed.cli.dask_scheduler",
             "--tls-ca-file", str(signed.folder / "ca.pem"),
             "--tls-cert", str(signed.folder / "cert.pem"),
             "--tls-key", str(signed.folder / "key.pem"),
             "--host", "tls://127.0.0.1", "--port", "0",
             "--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
            stderr=PIPE,
        )  # fmt: skip
        try:
            with trio.fail_after(30):
                said = b""
                while not (found := re.search(rb"tls://[\d.]+:\d+", said)):
                    said += await scheduler.stderr.receive_some()
                api.env["DASK_SCHEDULER_ADDRESS"] = found[0].decode()
                group = await trio.to_thread.run_sync(
                    partial(aemesh.connect, "A", state=tmp_path)
                )

                assert await trio.to_thread.run_sync(_identity, group) == "Scheduler"
        finally:
            scheduler.kill()
            await scheduler.stderr.aclose()
            await scheduler.wait()
        nursery.cancel_scope.cancel()
    signed.close()

    assert not list((tmp_path / "master" / "run").iterdir())


async def test_a_scheduler_that_was_started_anew_is_found(tmp_path: Path):
    """The same `Group`, before and after, and while there is none."""
    dask = {
        "protocol": "tcp://",
        "dashboard_address": "127.0.0.1:0",
        "processes": False,
    }
    api = MemoryControl(engines={"A": "dask"})

    def use() -> None:
        group, kept = None, set[Path]()
        for authority in ("{tls}/one", "{tls}/two"):
            with distributed.LocalCluster(n_workers=0, **dask) as there:
                address = there.scheduler_address
                api.env = {"DASK_SCHEDULER_ADDRESS": address, "X": authority}
                group = group or aemesh.connect("A", state=tmp_path)
                with group.client(timeout=10, set_as_default=False) as client:
                    assert client.scheduler.address == address
                    kept.add(group._credentials.folder)
        assert len(kept) == 2
        assert all(folder.exists() for folder in kept)
        with pytest.raises(EngineError, match="scheduler of group A does not answer"):
            group.client(timeout=0.1, set_as_default=False)
        group.close()
        assert not any(folder.exists() for folder in kept)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(use)
        nursery.cancel_scope.cancel()


async def test_a_scheduler_that_is_lost_just_now_is_looked_for_once_more(
    tmp_path: Path,
):
    there = distributed.LocalCluster(
        n_workers=0,
        protocol="tcp://",
        processes=False,
        dashboard_address="127.0.0.1:0",
    )
    addresses = ["tcp://127.0.0.1:1"] * 2 + [there.scheduler_address]

    class Renewed(MemoryControl):
        async def connect(
            self, group: GroupName, *, members: bool = True
        ) -> ConnectView:
            self.env = {"DASK_SCHEDULER_ADDRESS": addresses.pop(0)}
            return await super().connect(group, members=members)

    def use() -> None:
        with there, aemesh.connect("A", state=tmp_path) as group:
            client = group.client(timeout=3, set_as_default=False)
            assert client.scheduler.address == there.scheduler_address
            client.close()

    async with trio.open_nursery() as nursery:
        api = Renewed(engines={"A": "dask"})
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(use)
        nursery.cancel_scope.cancel()


async def test_options_that_nobody_knows_leave_nothing_behind(tmp_path: Path):
    """Neither a client at the scheduler, nor other wishes at the master."""
    api = MemoryControl(engines={"A": "dask"}, demands={"A": Demand(min=1)})
    there = distributed.LocalCluster(
        n_workers=0,
        protocol="tcp://",
        processes=False,
        dashboard_address="127.0.0.1:0",
    )
    api.env = {"DASK_SCHEDULER_ADDRESS": there.scheduler_address}

    def use() -> None:
        with aemesh.connect("A", state=tmp_path) as group, there:
            for wrong in ({"nope": 1}, {"every": 0}):
                with pytest.raises((TypeError, ValueError)):
                    group.adapt(0, 2, **wrong)
                with pytest.raises(TypeError):
                    group.executor(**wrong)
            assert api.demands["A"] == Demand(min=1)
            group.adapt(0, 2)
            while (
                len([one for one in there.scheduler.clients if "Client-" in one]) != 1
            ):
                threading.Event().wait(0.01)
            assert (api.demands["A"].min, api.demands["A"].max) == (0, 2)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(use)
        nursery.cancel_scope.cancel()
