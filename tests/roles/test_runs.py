"""Jobs ask their agent and their master: over real streams, with virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.group import MemberState
from aemesh.model.names import GroupName
from aemesh.model.run import ItemId, RunKey, RunName
from aemesh.protocol.pieces import Message
from aemesh.protocol.questions import (
    AskCheckpoint,
    AskCommit,
    AskKnown,
    AskResume,
    Done,
    Items,
    Refused,
    Self,
    State,
    ValueHead,
    WhoAmI,
    Words,
    answer_untrusted,
    encode,
)
from aemesh.protocol.streams import encode_question
from aemesh.testing.memory_jobs import MemoryJob
from tests.roles.mesh import Mesh, open_mesh
from tests.roles.test_adoption import open_office

A, B = GroupName("A"), GroupName("B")
K = RunKey("k")
ONE, TWO = ItemId("0" * 31 + "1"), ItemId("0" * 31 + "2")


def begin(mesh: Mesh, group: GroupName = A) -> RunName:
    view = mesh.ledger.open_run(group, K, fingerprint="f", title="t", total=2)
    return RunName(group, K, view.life)


def listen(mesh: Mesh, label: str, group: GroupName = A) -> None:
    """Read what a node says, as an engine does."""

    async def read() -> None:
        node = mesh.engine.running[group].nodes[label]
        async with aclosing(node.output()) as output:
            async for _ in output:
                pass

    mesh.nursery.start_soon(read)


@asynccontextmanager
async def open_job() -> AsyncIterator[tuple[Mesh, MemoryJob]]:
    """Have a worker serve A, and its engine read what the job there says."""
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        listen(mesh, "office-1.1")
        (job,) = mesh.machines["office-1"].jobs.running
        yield mesh, job


async def ask(job: Any, words: Words, *blobs: bytes) -> tuple[Words, bytes]:
    told, blob = answer_untrusted(await job.answer(encode(words, *blobs)))
    return told, bytes(blob)


def commit(run: RunName, item: ItemId, value: bytes) -> tuple[Words, bytes]:
    heads = (ValueHead(item, len(value)),)
    return AskCommit(run=run.key, life=run.life, items=heads), value


async def test_a_job_keeps_and_finds_what_is_finished(autojump_clock):
    """Shows: L3."""
    async with open_job() as (mesh, job):
        run = begin(mesh)
        value, state = bytes(300_000), b"s" * 200_000

        told, _ = await ask(
            job,
            AskCheckpoint(run=K, life=run.life, item=ValueHead(TWO, len(state))),
            state,
        )
        assert told == Done()
        assert (await ask(job, *commit(run, ONE, value)))[0] == Done()

        known, _ = await ask(job, AskKnown(run=K, life=run.life, items=(ONE, TWO)))
        assert known == Items(items=(ONE,))
        found = await ask(job, AskResume(run=K, life=run.life, item=TWO))
        assert found == (State(found=True), state)
        found = await ask(job, AskResume(run=K, life=run.life, item=ONE))
        assert found == (State(found=False), b"")
        assert mesh.ledger.value(run, ONE) == value
        (kept,) = mesh.ledger.items(run, 0, most=9)
        assert kept.worker == "office-1"


async def test_a_job_is_told_who_it_is_and_when_it_leaves(autojump_clock):
    async with open_job() as (mesh, job):
        machine = mesh.machines["office-1"]

        told, _ = await ask(job, WhoAmI())

        assert isinstance(told, Self)
        assert (told.group, told.generation, told.leaves_after) == ("A", 1, None)
        assert told.worker == str(machine.identity.key_id)
        assert told.master == str(mesh.master_id.key_id)


async def test_many_questions_at_one_time_have_each_its_answer(autojump_clock):
    async with open_job() as (mesh, job):
        run = begin(mesh)
        ids = [ItemId(f"{number:032x}") for number in range(200)]

        async def one(item: ItemId) -> None:
            await ask(job, *commit(run, item, item.encode() * 1000))
            known = AskKnown(run=K, life=run.life, items=(item,))
            assert (await ask(job, known))[0] == Items(items=(item,))

        async with trio.open_nursery() as nursery:
            for item in ids:
                nursery.start_soon(one, item)

        assert mesh.ledger.known(run, ids) == ids
        mesh.ledger.check()


async def test_what_was_asked_while_the_master_was_gone_is_asked_of_the_next(
    autojump_clock,
):
    """Shows: L3."""
    async with open_office("office-1") as office:
        listen(office, "office-1.1")
        (job,) = office.running("office-1")
        run = begin(office)
        answers: list[Words] = []

        async def later(item: ItemId) -> None:
            answers.append((await ask(job, *commit(run, item, bytes(200_000))))[0])

        await office.kill_master()
        office.nursery.start_soon(later, ONE)
        office.nursery.start_soon(later, TWO)
        await trio.sleep(5)
        assert answers == []

        await office.start_master()
        await office.wait_state("office-1", MemberState.LEASED)
        listen(office, "office-1.1")
        await trio.sleep(1)

        assert answers == [Done(), Done()]
        assert office.ledger.known(run, [ONE, TWO]) == [ONE, TWO]


async def test_a_job_does_not_reach_the_runs_of_another_group(autojump_clock):
    """Threat: T5: inside its group a worker may do what it likes, not outside."""
    async with open_mesh("A", "B") as mesh:
        for name in ("office-1", "office-2"):
            await mesh.start_worker(name)
            await mesh.wait_state(name, MemberState.LEASED)
        views = {view.name: view for view in mesh.master.workers()}
        group = GroupName(str(views["office-1"].group))
        foreign = B if group == A else A
        listen(mesh, "office-1.1", group)
        (job,) = mesh.machines["office-1"].jobs.running
        run = begin(mesh, foreign)

        for words, blob in (
            commit(run, ONE, b"x"),
            (AskKnown(run=K, life=run.life, items=(ONE,)), b""),
            (AskResume(run=K, life=run.life, item=ONE), b""),
        ):
            told, _ = await ask(job, words, blob)
            assert isinstance(told, Refused)
            assert told.error == "run/unknown"
        assert mesh.ledger.items(run, 0, most=9) == []


async def test_a_job_of_a_lease_that_is_over_keeps_nothing(autojump_clock):
    async with open_job() as (mesh, job):
        run = begin(mesh)
        (member,) = mesh.master._groups[A].members.values()

        member.dismiss()

        told, _ = await ask(job, *commit(run, ONE, b"late"))
        assert isinstance(told, Refused)
        assert told.error == "trust/refused"
        assert mesh.ledger.items(run, 0, most=9) == []


async def test_nonsense_of_a_job_is_refused_and_the_job_goes_on(autojump_clock):
    """Threat: T5: what a job says is bounded, typed, and harms nobody."""
    async with open_job() as (mesh, job):
        run = begin(mesh)
        for words, blob in (
            (AskCommit(run=K, life=run.life, items=(ValueHead(ONE, 9),)), b"short"),
            (AskCommit(run=K, life=run.life, items=(ValueHead("../x", 1),)), b"x"),
            (AskKnown(run="no key!", life=1, items=()), b""),
        ):
            told, _ = await ask(job, words, blob)
            assert isinstance(told, Refused)
            assert told.error == "peer/bad-message"
        with pytest.raises(BadMessage):
            await job.answer(b"\0\0\0\2{}")

        assert (await ask(job, *commit(run, ONE, b"good")))[0] == Done()


async def test_a_worker_that_floods_its_master_with_questions_is_cut_off(
    autojump_clock, monkeypatch
):
    """Threat: 87: what one peer can make us hold is bounded."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_state("office-1", MemberState.LEASED)
        begin(mesh)
        assert machine.worker is not None
        (held,) = machine.worker.held.leased.running
        ended: list[bool] = []

        async def never(*_args: object) -> bytes:
            return await trio.sleep_forever()

        (member,) = mesh.master._groups[A].members.values()
        monkeypatch.setattr(member.asked, "answer", never)

        async def read() -> None:
            node = mesh.engine.running[A].nodes["office-1.1"]
            async with aclosing(node.output()) as output:
                async for _ in output:
                    pass
            ended.append(True)

        mesh.nursery.start_soon(read)
        stream = held.stream._stream
        assert stream is not None
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            for number in range(limits.JOB_QUESTIONS * 2):
                for frame in encode_question(Message(number, b"\0\0\0\0")):
                    await stream.send_all(frame)
                    await trio.lowlevel.checkpoint()
        await trio.sleep(1)

        assert ended == [True]


async def test_a_worker_that_asks_for_states_and_takes_none_is_hung_up_on(
    autojump_clock, monkeypatch
):
    """Threat: 87: 40 kB of questions make the master hold one state, for a while."""
    async with open_job() as (mesh, job):
        run = begin(mesh)
        state = bytes(300_000)
        head = ValueHead(ONE, len(state))
        await ask(job, AskCheckpoint(run=K, life=run.life, item=head), state)
        (member,) = mesh.master._groups[A].members.values()
        (remote,) = member.running

        async def full(_data: bytes) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(remote._stream, "send_all", full)
        fetched = count_states(mesh, monkeypatch)
        machine = mesh.machines["office-1"]
        assert machine.worker is not None
        (held,) = machine.worker.held.leased.running
        stream = held.stream._stream
        assert stream is not None

        question = encode(AskResume(run=K, life=run.life, item=ONE))
        for number in range(limits.JOB_QUESTIONS):
            for frame in encode_question(Message(number, question)):
                await stream.send_all(frame)
        await trio.sleep(limits.FRAME_AFTER / 2)
        assert (len(fetched), remote in member.running) == (1, True)
        await trio.sleep(limits.FRAME_AFTER)

        assert (len(fetched), remote in member.running) == (1, False)


def count_states(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> list[ItemId]:
    """Return what grows with each state that the master brings into memory."""
    state, fetched = mesh.ledger.state, list[ItemId]()

    def counted(run: RunName, item: ItemId) -> bytes | None:
        fetched.append(item)
        return state(run, item)

    monkeypatch.setattr(mesh.ledger, "state", counted)
    return fetched
