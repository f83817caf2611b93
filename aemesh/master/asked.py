"""What a group's jobs ask: which of their runs' items are kept, and to keep more.

A job speaks for its member, and has what its member has: the runs of that group, as
long as the member serves it.  Who lost its lease is refused, however late it says so.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, BadMessage, BugError, RefusedError
from aemesh.protocol.questions import (
    AskCheckpoint,
    AskCommit,
    AskKnown,
    AskResume,
    Done,
    Items,
    State,
    encode,
    ids_untrusted,
    order_untrusted,
    question_untrusted,
    refused,
    run_untrusted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aemesh.host.ledger.clerk import Clerk
    from aemesh.model.names import GroupName, NodeName

_log = logging.getLogger(__name__)


class Questions:
    """Answers the jobs of all members of a master."""

    def __init__(self, clerk: Clerk, spawn: Callable[..., None]) -> None:
        self.spawn = spawn  # starts a task beside all else
        self._clerk = clerk
        self._states = trio.Semaphore(limits.STATES_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Questions: room for {self._states.value} states>"

    def by(self, group: GroupName, worker: NodeName) -> Asked:
        """Return who answers the jobs of one member."""
        return Asked(self._clerk, group, worker, self._states)


class Asked:
    """Answers the jobs of one member of a group."""

    def __init__(
        self, clerk: Clerk, group: GroupName, worker: NodeName, states: trio.Semaphore
    ) -> None:
        self._clerk = clerk
        self._group = group
        self._worker = worker
        self._states = states
        self._turn = trio.Lock()
        self._over = False

    def __repr__(self) -> str:
        return f"<Asked by {self._worker} in {self._group}>"

    def close(self) -> None:
        """The member serves this group no more: its jobs are refused."""
        self._over = True

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Have room for one state in memory: one of this member, few of all."""
        async with self._turn, self._states:
            yield

    async def answer(
        self,
        question: bytes,
        take_room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> bytes:
        """Return what a job is answered; nothing that it says is an error of ours.

        `take_room` is awaited before a state is brought into memory.
        """
        try:
            return await self._answer(question, take_room)
        except AemeshError as error:
            return refused(error)
        except Exception as error:  # noqa: BLE001 - per question; told and logged
            _log.exception("a question of a job on %s met a bug", self._worker)
            what = "the master met a bug of its own"
            return refused(BugError(what, why=type(error).__name__))

    async def _answer(
        self, question: bytes, take_room: Callable[[], Awaitable[None]]
    ) -> bytes:
        words, blob = question_untrusted(question)
        if isinstance(words, AskResume):
            await take_room()
        if self._over:
            what = f"{self._worker} serves group {self._group} no more"
            raise RefusedError(what)
        match words:
            case AskKnown():
                run = run_untrusted(words, self._group)
                known = await self._clerk.known(run, ids_untrusted(words.items))
                return encode(Items(items=tuple(known)))
            case AskCommit() | AskCheckpoint():
                order = order_untrusted(
                    words, blob, group=self._group, worker=self._worker
                )
                await self._clerk.apply(order)
                return encode(Done())
            case AskResume():
                run = run_untrusted(words, self._group)
                (item,) = ids_untrusted((words.item,))
                state = await self._clerk.state(run, item)
                return encode(State(found=state is not None), state or b"")
            case _:
                msg = "a question that its agent answers"
                raise BadMessage(msg)
