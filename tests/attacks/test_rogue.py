"""Attacks of those who were let in: a rogue worker, and a master good for some only."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.cli.exec import _as_lines
from aemesh.engines.dask.talk import Talk
from aemesh.errors import BadMessage, RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.store import open_store
from aemesh.host.trust import trustfiles
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.history import History
from aemesh.master.record import Order, WorkerRecord
from aemesh.model.group import MemberState
from aemesh.model.job import JobExit, JobSpec
from aemesh.model.key import KeyId
from aemesh.model.names import JobId, NodeName
from aemesh.model.trust import KnownPeer, Role
from aemesh.model.view import OutputView
from aemesh.policy.lease import Tenancy
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.streams import StreamReader
from aemesh.testing.memory_jobs import MemoryJob, MemoryJobs
from aemesh.worker.held import Held
from tests.roles.mesh import open_mesh

WORKER, DESK, ROGUE = (KeyId(bytes([n]) * 32) for n in range(3))


# --- what a member's script says to the master's engine -------------------------------


@asynccontextmanager
async def open_talk():
    job = MemoryJob(JobSpec(argv=("cat",)), {})
    talk = Talk("Dask on rogue", job)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.listen)
        yield talk, job
        job.finish(JobExit(0))


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"event":"error","message":5}',
        b'{"event":"error","message":{"a":1}}',
        b'{"event":["up"]}',
        b'{"event":"died","name":7,"code":"\\u001b[2J"}',
        b'"event"',
        b"null",
        b"\xff\xfe",
    ],
)
async def test_no_line_of_a_members_script_ends_the_engine(line):
    async with open_talk() as (talk, job):
        job.say(line + b"\n")
        job.say(b'{"event":"up"}\n')
        await trio.testing.wait_all_tasks_blocked()

        await talk.open({})  # it goes on to listen

    assert talk.last_words()


async def test_answers_to_nothing_that_was_asked_are_not_kept():
    async with open_talk() as (talk, job):
        for number in range(500):
            job.say(b'{"event":"info","id":%d}\n' % number)
        await trio.testing.wait_all_tasks_blocked()

        assert talk._answers == {}


async def test_a_script_that_says_nonsense_without_end_fills_no_log(caplog):
    """Threat: 89: also of those whom we trust."""
    told: list[object] = []
    with caplog.at_level(logging.DEBUG):
        async with open_talk() as (talk, job):
            talk.take = told.append
            for line in (b"\n", b'{"event":"died"}\n', b'{"event":"error"}\n'):
                for _ in range(20):
                    job.say(line * 100)
            await trio.testing.wait_all_tasks_blocked()

    assert len(caplog.records) + len(told) < 100


# --- orders of a master that is to lose the worker -------------------------------


class Stubborn(MemoryJob):
    """A job that takes SIGTERM for nothing."""

    async def end(self, *, term_after):
        await trio.sleep(term_after)
        return await super().end(term_after=term_after)


class StubbornJobs(MemoryJobs):
    async def start(self, job_id, spec, *, tls=None, answer=None):
        await trio.lowlevel.checkpoint()
        job = self.jobs[job_id] = Stubborn(spec, tls or {})
        return job


@pytest.mark.parametrize("ends_job_first", [True, False])
async def test_no_job_outlives_the_lease_by_a_wish_of_its_master(
    autojump_clock, ends_job_first
):
    """Threat: 90: let go with a year to end, it ran on after link, lease and trust."""
    jobs = StubbornJobs()
    held = Held(Tenancy(WORKER), jobs, lambda _: None)
    async with trio.open_nursery() as nursery:
        held.crew = nursery
        await held.handle(ROGUE, wire.Assign(group="A", generation=1))
        start = wire.Start(job="j", generation=1, argv=("sleep",))
        await held.handle(ROGUE, start)
        held.leased.attach(ROGUE, JobId("j"))
        year = 366 * 86400.0

        began = trio.current_time()
        if ends_job_first:
            await held.handle(ROGUE, wire.End(job="j", term_after=year))
        await held.handle(ROGUE, wire.Release(generation=1, term_after=year))

        assert jobs.running == []
        assert trio.current_time() - began <= 2 * limits.TERM_CAP_AFTER
        nursery.cancel_scope.cancel()


def test_no_master_uses_up_the_generations_of_a_worker():
    """The number is written down and never falls: at its end nobody could assign."""
    tenancy = Tenancy(WORKER, generation=7)

    with pytest.raises(RefusedError, match="is not the next one"):
        tenancy.assign(ROGUE, "A", 2**53)

    assert tenancy.generation == 7
    assert tenancy.assign(DESK, "A", 8).master == DESK
    tenancy.check()


# --- answers that never come -------------------------------


async def test_an_order_that_another_one_replaces_leaves_nobody_waiting():
    """A worker asks to leave just when its owner moves it."""
    record = WorkerRecord(WORKER, NodeName("rogue"))
    move, leave = Order(why="it moves to B"), Order(why="leaving", leave=True)
    record.give(move)
    record.give(leave)

    with trio.fail_after(1):
        await move.done.wait()

    assert isinstance(move.error, RefusedError)
    assert record.order is leave


async def test_a_worker_that_never_answers_an_assignment_is_parted_with(autojump_clock):
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("rogue", announce=False)

        async def silent(master, body):
            await trio.sleep_forever()

        machine.worker.held.handle = silent
        mesh.announce(machine)
        await mesh.wait_event("worker.lost")

        assert mesh.master.groups()[0].members == ()


# --- strangers who make a master dial them -------------------------------


async def test_workers_that_wait_for_trust_hold_only_so_many_connections(
    autojump_clock, monkeypatch
):
    """Threat: 61: else a thousand announced keys take all its file descriptors."""
    monkeypatch.setattr(limits, "UNTRUSTED_SHAKES", 3)
    async with open_mesh("A", policy=TrustPolicy(role=Role.MASTER)) as mesh:
        first = await mesh.start_worker("honest")
        await mesh.wait_worker("honest", lambda view: view.trust == "unknown")
        for number in range(6):
            await mesh.start_worker(f"flood-{number}")
        await trio.sleep(5)

        desk = mesh.master._parts.desk
        assert mesh.master.roster._anteroom.inside <= 3
        assert len(desk.waiting) == 7  # nobody's request is lost

        desk.accept(desk.waiting[first.identity.key_id], via="accept")
        desk.memory.tell_changed()

        await mesh.wait_state("honest", MemberState.LEASED)


async def test_strangers_do_not_push_out_the_history(autojump_clock):
    """Threat: 89: each try may fail for a reason that the stranger invents anew."""
    with open_store(None) as store:
        history = History(store, wall=trio.current_time)
        history.add("worker.joined", "honest serves A")
        for number in range(10_000):
            history.add_of_stranger("worker.unlinked", f"refused: {number}")

        kept = [event.text async for event in history.read(0, follow=False)]

    assert kept[0] == "honest serves A"
    assert len(kept) == 1 + limits.STRANGER_EVENTS_PER_MINUTE


async def test_a_trust_file_that_cannot_be_opened_for_a_while_ends_no_agent(
    tmp_path, monkeypatch
):
    """Out of file descriptors: nobody is trusted meanwhile, and all again after it."""
    folder = tmp_path / "master"
    folder.mkdir(mode=0o700)
    friend = Identity.ephemeral("friend")
    line = KnownPeer(NodeName("friend"), friend.public, "accept", "20261120")
    trustfiles.add(folder, Role.WORKER, line)
    alarms: list[str] = []
    desk = TrustDesk(
        TrustPolicy(role=Role.MASTER),
        folder=folder,
        wall=lambda: 0.0,
        alarm=alarms.append,
    )
    really_open = os.open

    def out_of_files(path, *args, **kwargs):
        if str(path).endswith("known_workers"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really_open(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", out_of_files)
        os.utime(folder / "known_workers")
        assert not desk.knows(friend.key_id)
        assert not desk.knows(friend.key_id)

    assert desk.knows(friend.key_id)
    assert len(alarms) == 1


# --- what a job's stream says -------------------------------


@pytest.mark.parametrize("code", [-(2**31) - 1, 2**31, 10**19, 10**20 - 1])
def test_an_exit_code_that_no_process_has_is_refused(code):
    frame = encode_frame(b'\x03{"code":%d}' % code, limit=1000)

    with pytest.raises(BadMessage):
        StreamReader().receive_untrusted(frame)


@pytest.mark.parametrize("code", [-1, 256, 2**40])
def test_a_member_that_was_lost_is_no_success(code, capsys):
    """256 would be 0 to a shell, and -1 better than any."""
    pieces = [OutputView(worker="a", code=0), OutputView(worker="b", code=code)]

    assert 0 < _as_lines(pieces) <= 255
    assert "exit code" in capsys.readouterr().err


# --- what a peer says of clones -------------------------------------------------------


async def test_a_worker_that_cries_clone_without_end_writes_a_bounded_history(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Threat: 89."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        assert machine.worker is not None
        (link,) = machine.worker.links.values()
        for number in range(2 * limits.STRANGER_EVENTS_PER_MINUTE):
            place = f"10.9.{number >> 8}.{number & 255}:7472"
            await link.tell(wire.Clone(address=place, you="10.0.0.1:40000"))
        for junk in ("junk", "[fe80::1%\x1b[2J]:1"):
            await link.tell(wire.Clone(address=junk, you="10.0.0.1:40000"))
        await trio.sleep(1)

        told = (await mesh.events()).count("master.clone")
        view = await mesh.wait_state("office-1", MemberState.LEASED)
    assert 0 < told <= limits.STRANGER_EVENTS_PER_MINUTE
    assert view.note.isprintable()


async def test_a_master_that_cries_clone_without_end_writes_a_bounded_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Threat: 89."""
    caplog.set_level(logging.WARNING)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        link = mesh.master.roster.records[machine.identity.key_id].link
        assert link is not None
        for number in range(500):
            place = f"10.9.{number >> 8}.{number & 255}:7472"
            await link.tell(wire.Clone(address=place, you="10.0.0.2:7472"))
        await trio.sleep(1)

    lines = [r for r in caplog.records if "two places" in r.getMessage()]
    assert 0 < len(lines) <= limits.STRANGER_LOGS_PER_MINUTE
