"""The control socket of a worker, with a real socket and the client of the CLI."""

from __future__ import annotations

import stat

import pytest
import trio

from aemesh.client.leaving import LocalWorker
from aemesh.errors import NoWorkerError, RefusedError, UsageError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.model.key import KeyId
from aemesh.net.links import Links
from aemesh.policy.lease import Tenancy
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.worker.control import serve_control
from aemesh.worker.held import Held
from aemesh.worker.parting import Parting

WORKER = KeyId(bytes(32))
NOON = 1.8e9
SOON = 10.0


@pytest.fixture
async def parting(tmp_path, nursery):
    """A worker that nobody holds, with its socket, at a noon that does not end."""
    parting = Parting(
        Held(Tenancy(WORKER), MemoryJobs(), lambda _: None),
        Links(WORKER),
        lambda: NOON,
    )
    path = tmp_path / "worker" / SOCKET_FILE
    await nursery.start(serve_control, parting, path)
    return parting


async def ask(call, *args):
    with trio.fail_after(SOON):
        return await trio.to_thread.run_sync(call, *args)


async def test_its_owner_agrees_sees_and_calls_off(tmp_path, parting):
    worker = LocalWorker(tmp_path)
    follow = worker.leave(NOON + 3600, "late")

    first = await ask(next, follow)
    shown = await ask(worker.departure)
    stays = await ask(worker.stay)
    last = await ask(next, follow)
    rest = await ask(list, follow)

    assert (first.state, first.end, first.haste) == ("agreed", NOON + 3600, "late")
    assert shown == first
    assert (stays.state, stays.end) == ("stays", 0.0)
    assert (last, rest) == (stays, [])
    assert parting.plan is None


async def test_the_last_line_has_the_receipt(tmp_path, parting, nursery):
    async def leave() -> None:
        await parting.run()
        await parting.end_jobs()

    nursery.start_soon(leave)

    views = await ask(list, LocalWorker(tmp_path).leave())

    assert views[-1].state == "left"
    assert views[-1].receipt == parting.receipt


async def test_what_cannot_be_is_refused_in_words(tmp_path, parting):
    worker = LocalWorker(tmp_path)

    with pytest.raises(RefusedError, match="nothing to call off"):
        await ask(worker.stay)
    with pytest.raises(UsageError, match="unknown haste"):
        await ask(list, worker.leave(0.0, "tomorrow"))
    with pytest.raises(NoWorkerError, match="no worker is running"):
        await ask(LocalWorker(tmp_path / "elsewhere").departure)


async def test_only_its_owner_reaches_the_socket(tmp_path, parting):
    path = tmp_path / "worker" / SOCKET_FILE

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
