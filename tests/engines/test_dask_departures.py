"""Who left a group is told to those that stay, at once and in few messages."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from aemesh.engines.dask.dask_door import Door
from aemesh.engines.dask.engine import RunningDask
from aemesh.engines.dask.talk import Talk
from aemesh.model.group import Haste

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aemesh.plugin import GroupContext, Job, Member


@dataclass
class Heard:
    """A script that only listens: the messages that came, and who is refused."""

    messages: int = 0
    refused: list[str] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        self.messages += 1
        await trio.lowlevel.checkpoint()
        self.refused += [json.loads(line)["member"] for line in data.splitlines()]

    async def end(self, *, term_after: float) -> None:
        del term_after


class Head(Talk):
    """A scheduler that does at once what it is asked."""

    async def ask(self, op: str, **fields: object) -> Any:
        del op, fields
        await trio.lowlevel.checkpoint()
        return {}


def member(label: str) -> Member:
    return cast("Member", SimpleNamespace(label=label, name=label))


@asynccontextmanager
async def open_dask(
    members: int, *, closing: bool = False
) -> AsyncIterator[tuple[RunningDask, Heard, dict[str, Heard]]]:
    """Give a group of `m0`, `m1`, … with its head and its nodes."""
    group = cast("GroupContext", SimpleNamespace(name="A", closing=closing))
    head, nodes = Heard(), {f"m{number}": Heard() for number in range(members)}
    async with trio.open_nursery() as nursery:
        running = RunningDask(group, Head("the head", cast("Job", head)), nursery)
        for label, node in nodes.items():
            running._nodes[label] = Talk(label, cast("Job", node))
        yield running, head, nodes


async def lose(running: RunningDask, *labels: str) -> None:
    async with trio.open_nursery() as nursery:
        for label in labels:
            nursery.start_soon(running.lost, member(label))


@pytest.mark.parametrize("members", [20, 200])
async def test_members_that_leave_together_cost_each_other_two_messages(
    autojump_clock, members: int
) -> None:
    """Threat: 77."""
    async with open_dask(members) as (running, head, nodes):
        gone, stay = list(nodes)[::2], list(nodes)[1::2]
        await lose(running, *gone)
        assert sorted(head.refused) == sorted(gone)  # that was waited for

    for label in stay:
        assert sorted(nodes[label].refused) == sorted(gone)
        assert nodes[label].messages <= 2
    assert head.messages == len(gone)


async def test_who_leaves_alone_is_refused_without_delay(autojump_clock) -> None:
    """Threat: 77."""
    async with open_dask(3) as (running, _, nodes):
        for gone in ("m0", "m1"):
            await lose(running, gone)
            started = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            assert gone in nodes["m2"].refused
            assert trio.current_time() == started
            await trio.sleep(1)


async def test_who_leaves_a_moment_later_is_refused_too(autojump_clock) -> None:
    """Threat: 77."""
    async with open_dask(4) as (running, _, nodes):
        await lose(running, "m0")
        await trio.testing.wait_all_tasks_blocked()
        await lose(running, "m1")
        await lose(running, "m2")

    assert nodes["m3"].refused == ["m0", "m1", "m2"]
    assert nodes["m3"].messages == 2


async def test_a_group_that_closes_tells_its_nodes_nothing(autojump_clock) -> None:
    async with open_dask(4, closing=True) as (running, head, nodes):
        await running.retire(member("m0"), by_after=1, haste=Haste.NOW)
        await lose(running, "m1")

    assert head.refused == ["m0", "m1"]
    assert nodes["m2"].messages == nodes["m3"].messages == 0


async def test_a_group_that_ends_waits_for_no_more_departures(autojump_clock) -> None:
    async with open_dask(2) as (running, _, _):
        await lose(running, "m0")
        await trio.testing.wait_all_tasks_blocked()
        running._nodes.clear()
        started = trio.current_time()
        running._closing.set()

    assert trio.current_time() == started


# The door


class Comm:
    """A connection that counts who looks at its certificate."""

    def __init__(self, *names: str) -> None:
        self.looks = 0
        self.aborted = False
        self._names = names

    @property
    def extra_info(self) -> dict[str, Any]:
        self.looks += 1
        subject = tuple((("commonName", name),) for name in self._names)
        return {"peercert": {"subject": subject}}

    def abort(self) -> None:
        self.aborted = True


def test_a_refusal_looks_at_no_connection_of_others() -> None:
    """Threat: 77."""
    door = Door()
    others, theirs = [Comm("m0") for _ in range(100)], [Comm("m1"), Comm("x", "m1")]
    for comm in (*others, *theirs):
        door.admit(comm)

    assert door.refuse("m1")

    assert all(comm.aborted for comm in theirs)
    assert not any(comm.aborted for comm in others)
    assert sum(comm.looks for comm in (*others, *theirs)) == 102  # each when it came


def test_who_was_refused_does_not_come_in_again() -> None:
    """Threat: 77."""
    door = Door()
    long = "m" * 70
    assert door.refuse("m1")
    assert door.refuse(long)
    assert not door.refuse("m1")

    for comm in (Comm("m1"), Comm("x", "m1"), Comm(long[:64]), Comm()):
        door.admit(comm)
        assert comm.aborted
    assert door.refused() == ["m1", long[:64]]
