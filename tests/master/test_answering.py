"""Answers to jobs: what they hold of the master's memory is bounded, and goes again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import UnreachableError
from aemesh.host.ledger.clerk import Clerk
from aemesh.host.ledger.ledger import Ledger, memory_ledger
from aemesh.master.answering import Answering
from aemesh.master.asked import Asked, Questions
from aemesh.model.names import GroupName, NodeName
from aemesh.model.run import Checkpoint, ItemId, Piece, RunKey, RunName
from aemesh.protocol.pieces import Message
from aemesh.protocol.questions import (
    AskKnown,
    AskResume,
    State,
    answer_untrusted,
    encode,
)
from aemesh.protocol.streams import Side, StreamReader

A, K = GroupName("A"), RunKey("k")
ONE = ItemId("0" * 31 + "1")
STATE = bytes(3 * limits.FRAME_BYTES)


class Wire:
    """A job's stream to its agent, who takes a frame each `every` seconds."""

    def __init__(self, asked: Asked, nursery: trio.Nursery, *, every: float) -> None:
        self.every = every
        self.ended = ""
        self.reader = StreamReader(Side.AGENT)
        self.answering = Answering(
            asked, spawn=nursery.start_soon, send=self._send, hang_up=self._hang_up
        )

    async def _send(self, frame: bytes) -> None:
        if self.ended:
            raise UnreachableError(self.ended)
        await trio.sleep(self.every)
        self.reader.receive_untrusted(frame)

    async def _hang_up(self, why: str) -> None:
        await trio.lowlevel.checkpoint()
        self.ended = why

    def told(self) -> list[tuple[int, bytes]]:
        """Return what came: numbers of questions, and the bytes of their answers."""
        return [
            (said.number, bytes(answer_untrusted(said.data)[1]))
            for said in self.reader.messages
        ]


class Office:
    """A ledger with one state, and members that ask for it."""

    def __init__(self, ledger: Ledger, nursery: trio.Nursery) -> None:
        self.clerk = Clerk(ledger)
        self.nursery = nursery
        self.questions = Questions(self.clerk, nursery.start_soon)
        view = ledger.open_run(A, K, fingerprint="f", title="t", total=1)
        self.run = RunName(A, K, view.life)
        ledger.apply([Checkpoint(self.run, Piece(ONE, STATE))])
        self.fetched = 0
        self._state = ledger.state
        ledger.state = self._counted  # type: ignore[method-assign]

    def _counted(self, run: RunName, item: ItemId) -> bytes | None:
        self.fetched += 1
        return self._state(run, item)

    def member(self, name: str) -> Asked:
        return self.questions.by(A, NodeName(name))

    def wire(self, asked: Asked, *, every: float = 0.0) -> Wire:
        return Wire(asked, self.nursery, every=every)

    def resume(self, wire: Wire, *, numbers: range = range(1)) -> None:
        question = encode(AskResume(run=K, life=self.run.life, item=ONE))
        for number in numbers:
            wire.answering.begin_untrusted(Message(number, question))

    def known(self, wire: Wire, number: int) -> None:
        question = encode(AskKnown(run=K, life=self.run.life, items=(ONE,)))
        wire.answering.begin_untrusted(Message(number, question))


@asynccontextmanager
async def open_office() -> AsyncIterator[Office]:
    async with trio.open_nursery() as nursery:
        yield Office(memory_ledger(wall=lambda: 1.0), nursery)
        nursery.cancel_scope.cancel()


async def test_a_member_has_one_state_in_memory_whatever_its_jobs_ask(autojump_clock):
    """Threat: 87."""
    async with open_office() as office:
        member = office.member("office-1")
        stuck = office.wire(member, every=limits.FRAME_AFTER / 2)
        other = office.wire(member)

        office.resume(stuck, numbers=range(limits.JOB_QUESTIONS))
        office.resume(other, numbers=range(9))
        office.known(other, 10)
        await trio.sleep(1)

        assert office.fetched == 1
        assert [number for number, _ in other.told()] == [10]


async def test_all_members_have_so_many_states_in_memory_and_take_turns(autojump_clock):
    """Threat: 87."""
    async with open_office() as office:
        count = 3 * limits.STATES_AT_ONCE
        wires = [office.wire(office.member(f"w-{n}"), every=1) for n in range(count)]
        for wire in wires:
            office.resume(wire)
        await trio.sleep(1)
        assert office.fetched == limits.STATES_AT_ONCE

        await trio.sleep(3 * 60)

        assert all(wire.told() == [(0, STATE)] for wire in wires)


async def test_who_does_not_take_an_answer_is_hung_up_on_and_nothing_more_is_fetched(
    autojump_clock,
):
    """Threat: 87."""
    async with open_office() as office:
        member = office.member("office-1")
        stuck = office.wire(member, every=limits.FRAME_AFTER + 1)
        other = office.wire(member)
        office.resume(stuck, numbers=range(limits.JOB_QUESTIONS))
        await trio.testing.wait_all_tasks_blocked()
        office.resume(other)
        await trio.sleep(limits.FRAME_AFTER + 1)

        assert stuck.ended == "it took no answer for 20 s"
        assert office.fetched == 2  # one for each stream
        assert other.told() == [(0, STATE)]
        assert repr(stuck.answering) == "<Answering: 0 questions of 0 bytes>"


@pytest.mark.parametrize(("rate", "taken"), [(60_000, True), (40_000, False)])
async def test_an_answer_may_take_the_time_of_its_bytes_on_a_slow_line(
    autojump_clock, rate: int, taken: bool
):
    """50 kB/s, as for a frame of a link."""
    async with open_office() as office:
        every = limits.CHUNK_BYTES / rate
        wire = office.wire(office.member("office-1"), every=every)
        office.resume(wire)

        await trio.sleep(len(STATE) / rate + 10)

        assert (wire.told() == [(0, STATE)]) == taken
        assert bool(wire.ended) != taken


async def test_a_member_that_was_let_go_while_it_waits_for_room_is_refused(
    autojump_clock,
):
    async with open_office() as office:
        member = office.member("office-1")
        wire = office.wire(member)
        async with member.room():
            office.resume(wire)
            await trio.testing.wait_all_tasks_blocked()
            member.close()
        await trio.sleep(1)

        ((number, _),) = wire.told()
        (said,) = wire.reader.messages
        assert number == 0
        assert not isinstance(answer_untrusted(said.data)[0], State)
        assert office.fetched == 0
