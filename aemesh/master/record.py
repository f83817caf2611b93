"""What a master knows of one worker, and what it wants of it next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from aemesh.errors import RefusedError
from aemesh.master.reach import MemberReach
from aemesh.model.address import Address
from aemesh.model.group import Haste, Holder, MemberState, Orphan, Receipt
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import Reason
from aemesh.model.view import PortsView, WorkerView
from aemesh.net.link import Link
from aemesh.policy.grouping import Placement
from aemesh.policy.membership import LINKED_STATES, Membership
from aemesh.policy.standing import Standing

# Why a worker serves nobody, until it is taken back.
DRAINED = "drained: `aemesh workers drain --cancel` takes it back"


@dataclass(slots=True)
class Order:
    """Something that is to be done with a linked worker; `result` tells how it went."""

    why: str
    move_to: GroupName | None = None
    leave: bool = False  # the worker asks for it
    drain: bool = False  # the master's user does
    by_after: float = 0.0  # from its beginning; of a leave, from when it was given
    given_at: float = 0.0  # on trio's clock
    haste: Haste = Haste.SOON
    follow: bool = False  # the worker wants to hear how it goes
    stays: bool = False  # it was called off
    receipt: Receipt | None = None
    error: Exception | None = None
    done: trio.Event = field(default_factory=trio.Event)

    def left_after(self) -> float:
        """Return the seconds that it may take now: the end of a leave stands."""
        waited = trio.current_time() - self.given_at if self.leave else 0.0
        return max(0.0, self.by_after - waited)


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """One worker; it lives as long as the master does."""

    key_id: KeyId
    name: NodeName
    membership: Membership = field(default_factory=Membership)
    facts: Facts | None = None
    link: Link | None = None
    address: str = ""
    places: tuple[Address, ...] = ()  # that it announced, the newest first
    note: str = ""
    waiting: Reason | None = None  # whose yes is missing, or why it was refused
    spares: int = 0  # its processes that wait for a group
    spare_memory: int = 0  # bytes of these
    groups: frozenset[GroupName] = frozenset()  # its owner allows; empty: any
    clone: str = ""  # where else its key is in use, as a sentence; while it is linked
    holder: Holder | None = None  # who holds it now, as it says; while it is linked
    wanted: dict[KeyId, int] = field(default_factory=dict)  # by other masters
    over: bool = False  # its owner's span of our lease is over
    waits: bool = False  # we had it, and others have their turn
    serial: int = 0  # of the latest facts on this link
    imposters: int = 0  # announcements in its name that could not prove it
    home: GroupName | None = None  # the group it comes back to
    until: float = 0.0  # when it leaves, by our clock; 0.0: it did not say
    aside: str = ""  # why it serves nobody: it has left its group, or was drained
    orphan: Orphan | None = None  # a lease that may be adopted
    pinned: GroupName | None = None  # where a person moved it to
    placement: Placement | None = None  # where it is to be, by the plan of the moment
    attended: bool = False
    ports: MemberReach | None = None  # of its engine, while it serves
    standing: Standing = field(default_factory=Standing)
    # Groups in which it did not come up, and until when it is not tried there again.
    barred: dict[GroupName, float] = field(default_factory=dict)
    look: Callable[[], None] = lambda: None  # tells the sharing that something changed
    order: Order | None = None
    ordered: trio.Event = field(default_factory=trio.Event)

    def give(self, order: Order) -> None:
        """Hand the worker's task its next order; it looks when it is woken.

        Nobody is left waiting for one that this takes the place of.
        """
        if self.order is not None:
            what = f"{self.name} got another order"
            self.order.error = RefusedError(what, why=order.why)
            self.order.done.set()
        self.order = order
        order.given_at = trio.current_time()
        self.wake()

    def recall(self) -> None:
        """Let a worker that leaves, has left its group or was drained serve again."""
        if self.order is not None and (self.order.leave or self.order.drain):
            self.order.stays = True
        self.aside = ""
        self.wake()

    def is_held_by_other(self, ours: KeyId) -> bool:
        """Whether another master than this holds it, or is to have it next."""
        if self.waits:
            return True
        return self.holder is not None and self.holder.master != ours

    def wake(self) -> None:
        """Let the worker's task look again at what is to be done."""
        self.look()
        self.rouse()

    def rouse(self) -> None:
        """As `wake`, by the sharing itself, which has just looked."""
        self.ordered.set()
        self.ordered = trio.Event()

    def view(self) -> WorkerView:
        """Return what is shown of the worker."""
        facts = self.facts
        return WorkerView(
            name=self.name,
            key=str(self.key_id),
            words=self.key_id.words,
            state=self.membership.state.value,
            trust=self._trust(),
            address=self.address,
            group=self.membership.group,
            generation=self.membership.generation,
            cores=facts.cores if facts else 0,
            memory=facts.memory if facts else 0,
            spares=self.spares,
            spare_memory=self.spare_memory,
            note=self._note(),
            held_by="" if self.holder is None else str(self.holder.name),
            held_key="" if self.holder is None else str(self.holder.master),
            held_group=None if self.holder is None else self.holder.group,
            since=self.membership.since,
            until=self.until,
            placed=None if self.placement is None else self.placement.group,
            why="" if self.placement is None else self.placement.why,
            labels=() if facts is None else facts.labels,
            ports=self._ports_view(),
        )

    def _ports_view(self) -> PortsView | None:
        ports = self.ports
        if ports is None or ports.way is None or ports.is_closed:
            return None
        return PortsView(
            way="forwarded" if ports.way.forwarded else "direct",
            why=ports.way.why,
            since=ports.since,
            bytes=ports.meter.bytes,
            connections=ports.meter.connections,
            open=ports.meter.open,
        )

    def _trust(self) -> str:
        state = self.membership.state
        # While the verdicts are out, `linked`, the other's word is missing.
        proved = state in LINKED_STATES and state is not MemberState.LINKED
        if proved and self.waiting is None:
            return "trusted"
        return "unknown" if self.waiting is None else self.waiting.value

    def _note(self) -> str:
        imposter = f"imposter: {self.imposters} announcements in its name are forged"
        now = trio.current_time()
        wait = f"{self.standing.until - now:.0f} s"
        bad = self.standing.is_aside(now)
        note = f"set aside for {wait}: {self.standing.why}" if bad else self.note
        said = (note, self.aside, self.clone, imposter if self.imposters else "")
        return "; ".join(filter(None, said))
