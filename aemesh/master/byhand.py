"""What a person does with single workers: moves them, drains them, takes them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.host.store import Store
from aemesh.master.history import History
from aemesh.master.record import Order, WorkerRecord
from aemesh.master.roster import Roster
from aemesh.master.sharing import Sharing
from aemesh.model.group import Receipt
from aemesh.model.view import MoveView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.model.group import Haste
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName

# A move drains the worker, waits for room, and brings the new engine up.
_MOVE_AFTER = 2 * limits.RETIRE_AFTER + limits.MEMBER_ADD_AFTER


@dataclass(frozen=True, slots=True)
class ByHand:
    """Orders to workers, by name or fingerprint, of one master."""

    roster: Roster
    sharing: Sharing
    store: Store
    history: History

    def readmit(self, worker: str) -> WorkerView:
        """Take a worker back that was set aside."""
        record = self.roster.find(worker)
        record.standing.readmit()
        self.store.put_aside(record.key_id, 0.0, "", 0)
        record.barred.clear()
        text = f"{record.name} is taken back by hand"
        self.history.add("worker.readmitted", text, worker=record.name)
        self.sharing.asked()
        return record.view()

    async def move(self, worker: str, group: GroupName) -> Receipt:
        """Take a worker out of its group and to another; return how it left.

        It stays there, against the sharing.  If it does not come up there it goes back
        to where it was, and that is raised.
        """
        record = self.roster.find(worker)
        self._check_move(record, group)
        return await self._move(record, group)

    async def move_all(
        self, workers: Sequence[str], group: GroupName
    ) -> list[MoveView]:
        """Move several at one time, or nobody if one may not; tell how each fared."""
        records = [self.roster.find(worker) for worker in workers]
        for record in records:
            self._check_move(record, group)
        views: dict[KeyId, MoveView] = {}

        async def one(record: WorkerRecord) -> None:
            try:
                receipt = await self._move(record, group)
                view = MoveView(worker=record.name, receipt=receipt)
            except AemeshError as exc:
                view = MoveView(worker=record.name, error=exc.fields())
            views[record.key_id] = view

        async with trio.open_nursery() as nursery:
            for record in dict.fromkeys(records):
                nursery.start_soon(one, record)
        return [views[record.key_id] for record in dict.fromkeys(records)]

    def share(self, workers: Sequence[str]) -> list[MoveView]:
        """Let workers be shared again that were moved by hand."""
        records = [self.roster.find(worker) for worker in workers]
        for record in records:
            self.sharing.pin(record, None)
        return [MoveView(worker=record.name) for record in records]

    def _check_move(self, record: WorkerRecord, group: GroupName) -> None:
        if record.link is None:
            msg = f"{record.name} is not linked"
            raise UnreachableError(msg, why=record.note)
        record.barred.pop(group, None)  # a person tries it once more
        what = f"{record.name} cannot serve {group}"
        if record.order is not None and record.order.leave:
            raise RefusedError(what, why="it leaves")
        here = record.membership.group
        held = [name for name in (group, here) if name and self.sharing.holders(name)]
        if held and here != group:
            raise RefusedError(what, why=f"{held[0]} is held as it is")
        refusal = self.sharing.refusal(record, group)
        if refusal:
            raise RefusedError(what, why=refusal)
        found, why = self.sharing.would_place(record, group)
        if found != group:
            raise RefusedError(what, why=why)

    async def _move(self, record: WorkerRecord, group: GroupName) -> Receipt:
        # The plan must not call it back on the way.
        self.sharing.pin(record, group)
        if record.membership.group == group:
            return Receipt(record.name, group, graceful=True)  # and stays there
        order = Order(
            why=f"it moves to {group}", move_to=group, by_after=limits.RETIRE_AFTER
        )
        record.give(order)
        with trio.move_on_after(_MOVE_AFTER):
            await order.done.wait()
        if not order.done.is_set():
            msg = f"{record.name} is still on its way to {group}"
            raise UnreachableError(msg, why=f"after {_MOVE_AFTER:g} s")
        if order.error is not None:
            raise order.error
        assert order.receipt is not None
        return order.receipt

    async def drain(
        self, workers: tuple[str, ...], *, by_after: float, haste: Haste
    ) -> list[Receipt]:
        """Take workers out of their groups, all at once, until they are recalled."""
        found = [self.roster.find(worker) for worker in workers]
        records = list(dict.fromkeys(found))  # one may be named twice
        for record in records:
            if record.link is None:
                msg = f"{record.name} is not linked"
                raise UnreachableError(msg, why=record.note)
            if record.order is not None and record.order.leave:
                what = f"{record.name} cannot be drained"
                raise RefusedError(what, why="it leaves already")
        why = "the master's user drains it"
        orders = [
            Order(why=why, drain=True, by_after=by_after, haste=haste) for _ in records
        ]
        for record, order in zip(records, orders, strict=True):
            self.store.put_drained(record.key_id, drained=True)
            record.give(order)
        receipts = []
        for record, order in zip(records, orders, strict=True):
            await order.done.wait()
            if order.error is not None:
                raise order.error
            if order.receipt is None:
                what = f"{record.name} stays"
                raise RefusedError(what, why="its drain was called off")
            receipts.append(order.receipt)
        return receipts

    async def undrain(self, worker: str) -> None:
        """Let a worker that is drained, or being drained, serve again."""
        record = self.roster.find(worker)
        if record.order is not None and record.order.leave:
            what = f"{record.name} leaves because its owner wants it"
            raise RefusedError(what, why="only `aemesh leave --cancel` there ends that")
        self.store.put_drained(record.key_id, drained=False)
        record.recall()
