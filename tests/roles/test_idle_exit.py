"""`--idle-exit`: a master and a worker that nobody needs end; the others do not."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.master.activity import Activity
from aemesh.master.control import serve_control
from aemesh.model.names import GroupName
from aemesh.testing.memory_control import MemoryControl
from tests.roles.mesh import open_mesh

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.worker.worker import Worker
    from tests.roles.mesh import Mesh

A = GroupName("A")
SPAN = 600.0
LATE = SPAN / 60


class Span:
    """How long a wait took, once it is over."""

    def __init__(self) -> None:
        self.began_at = trio.current_time()
        self.over = trio.Event()
        self.ended_at = float("nan")

    async def run(self, mesh: Mesh) -> None:
        await mesh.master.wait_idle(SPAN)
        self.ended_at = trio.current_time()
        self.over.set()


@asynccontextmanager
async def waiting(mesh: Mesh):
    async with trio.open_nursery() as nursery:
        span = Span()
        nursery.start_soon(span.run, mesh)
        yield span
        nursery.cancel_scope.cancel()


async def join(mesh: Mesh, name: str = "office-1") -> None:
    await mesh.start_worker(name)
    await mesh.wait_worker(name, lambda worker: worker.group == A)
    await mesh.wait_event("worker.joined")


async def test_a_master_that_nobody_uses_ends(autojump_clock):
    """Shows: L8."""
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        await join(mesh)
        joined_at = trio.current_time()
        await span.over.wait()

    assert span.ended_at - span.began_at >= SPAN
    assert span.ended_at - joined_at <= SPAN + LATE


async def test_work_on_a_member_keeps_a_master(autojump_clock):
    """Shows: L8."""
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        await join(mesh)
        running = mesh.engine.running[A]
        (label,) = running.members
        running.busy.add(label)
        await trio.sleep(10 * SPAN)
        assert not span.over.is_set()
        running.busy.clear()
        running.worked_at[label] = done_at = trio.current_time()
        await span.over.wait()

    assert SPAN <= span.ended_at - done_at <= SPAN + LATE


async def test_a_command_on_a_member_keeps_a_master(autojump_clock):
    """Shows: L8."""
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        await join(mesh)
        async with aclosing(mesh.master.exec(A, ("sleep",), {})) as output:
            with trio.move_on_after(5 * SPAN):
                async for _ in output:
                    pass
        done_at = trio.current_time()
        assert not span.over.is_set()
        await span.over.wait()

    assert SPAN <= span.ended_at - done_at <= SPAN + LATE + 5


async def test_a_client_that_computes_nothing_keeps_a_master(autojump_clock):
    """Shows: L8."""
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        mesh.clients = True
        await trio.sleep(10 * SPAN)
        assert not span.over.is_set()
        mesh.clients = False
        gone_at = trio.current_time()
        await span.over.wait()

    assert SPAN - LATE <= span.ended_at - gone_at <= SPAN + LATE


async def test_a_request_keeps_a_master_while_it_is_answered_and_after(autojump_clock):
    """Shows: L8."""
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        mesh.master.requests.begin()
        await trio.sleep(3 * SPAN)
        assert not span.over.is_set()
        mesh.master.requests.end()
        done_at = trio.current_time()
        await span.over.wait()

    assert SPAN <= span.ended_at - done_at <= SPAN + LATE


async def test_a_request_counts_from_its_beginning_to_its_end(tmp_path: Path):
    """Shows: L8."""
    requests, path = Activity(), tmp_path / "run" / "control.sock"
    serve = partial(serve_control, MemoryControl(), path, requests=requests)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        await trio.sleep(0.01)
        assert requests.idle_after() > 0.0

        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await stream.receive_some()
        assert requests.idle_after() == 0.0, "it is being followed"
        await stream.aclose()
        with trio.fail_after(10):
            while requests.idle_after() == 0.0:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_an_engine_that_says_nothing_does_not_keep_a_master(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
):
    async with open_mesh("A") as mesh, waiting(mesh) as span:
        await join(mesh)

        async def broken():
            raise ZeroDivisionError

        monkeypatch.setattr(mesh.engine.running[A], "idle_after", broken)
        with trio.fail_after(2 * SPAN):
            await span.over.wait()


async def test_a_worker_without_a_lease_leaves_and_one_that_is_held_does_not(
    autojump_clock,
):
    """Shows: L8."""
    async with open_mesh("A") as mesh:
        free = await mesh.start_worker("free", announce=False)
        began_at = trio.current_time()
        assert free.worker is not None
        await free.worker.wait_idle(SPAN)
        assert trio.current_time() - began_at == pytest.approx(SPAN)

        held = await mesh.start_worker("held")
        assert held.worker is not None
        await mesh.wait_worker("held", lambda worker: worker.group == A)
        with trio.move_on_after(10 * SPAN) as scope:
            await held.worker.wait_idle(SPAN)
        assert scope.cancelled_caught

        # Other news of it, told again and again, is no use of it.
        other = await mesh.start_worker("other", announce=False)
        assert other.worker is not None
        began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_news, other.worker)
            await other.worker.wait_idle(SPAN)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began_at == pytest.approx(SPAN)

        # Its group goes, and so does its lease.
        await mesh.master.close_group(A)
        closed_at = trio.current_time()
        await held.worker.wait_idle(SPAN)
        assert SPAN <= trio.current_time() - closed_at <= SPAN + 30


async def tell_news(worker: Worker) -> None:
    while True:
        await trio.sleep(SPAN / 3)
        worker.held.tell_changed()
