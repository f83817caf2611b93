"""A master on another machine, as far as it tells us how things are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError, UnreachableError
from aemesh.model.address import Seed
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.model.view import (
    EventView,
    GroupStatusView,
    GroupView,
    StatusView,
    WorkerView,
)
from aemesh.net.asking import ask_untrusted
from aemesh.net.doorman import Desk, DeskDoorman, Doorman
from aemesh.net.shake import Shaker
from aemesh.net.transport import Network
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.net.shake import Channel

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """Where a master is, and how to prove who we are to each other."""

    seed: Seed
    network: Network
    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    waits: Callable[[Peer], None] = lambda _: None  # called while a person is asked

    async def ask(self, ask: wire.Ask) -> list[bytes]:
        """Return the lines of the answer; raises as `ask_untrusted`."""
        return await ask_untrusted(await self._connect(), ask)

    async def _connect(self) -> Channel:
        addresses = await self.network.resolve(self.seed.host, self.seed.port)
        for number, address in enumerate(addresses, 1):
            try:
                connection = await self.network.dial(address)
            except UnreachableError:
                if number == len(addresses):
                    raise
                continue
            shaker = self.shaker(_Asker(self.desk, self.waits))
            return await shaker.connect(connection, expected=None, purpose=Purpose.ASK)
        what = f"{self.seed.host} has no address"
        raise UnreachableError(what)


class Afar:
    """The part of `Mesh` that only looks, for a master on another machine."""

    def __init__(self, far: Far) -> None:
        self._far = far

    def __repr__(self) -> str:
        return f"<Afar {self._far.seed}>"

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""
        return self._one(StatusView, what="status")

    def workers(self) -> list[WorkerView]:
        """Return the workers that we may see."""
        return self._all(WorkerView, what="workers")

    def groups(self) -> list[GroupView]:
        """Return the groups that we may see."""
        return self._all(GroupView, what="groups")

    def group_status(self, name: str) -> GroupStatusView:
        """Return all about a group."""
        return self._one(GroupStatusView, what="group", group=name)

    def events(self, after: int = 0, *, follow: bool = False) -> Iterator[EventView]:
        """Yield the history beyond number `after`; with `follow`, what comes then."""
        while True:
            found = self._all(EventView, what="events", after=after)
            yield from found
            after = found[-1].number if found else after
            if len(found) >= limits.EVENTS_ANSWERED:
                continue
            if not follow:
                return
            trio.run(trio.sleep, limits.ASK_EVERY)

    def _one(self, kind: type[V], *, what: str, group: str = "") -> V:
        found = self._all(kind, what=what, group=group)
        if len(found) != 1:
            msg = f"expected one {what}, got {len(found)}"
            raise BadMessage(msg)
        return found[0]

    def _all(
        self, kind: type[V], *, what: str, group: str = "", after: int = 0
    ) -> list[V]:
        ask = wire.Ask(what=what, group=group, after=after)
        lines = trio.run(partial(self._far.ask, ask))
        return [view_untrusted(line, kind) for line in lines]


def view_untrusted(line: bytes, kind: type[V]) -> V:
    """Return a view that a master told; raises `BadMessage`."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, RecursionError) as exc:
        msg = f"the answer is no {kind.__name__}: {exc}"
        raise BadMessage(msg) from None


class _Asker(DeskDoorman):
    """The doorman of a question: trusts whom the node trusts, and changes nothing."""

    def __init__(self, desk: Desk, waits: Callable[[Peer], None]) -> None:
        super().__init__(desk)
        self._waits = waits

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,  # noqa: ARG002 - the protocol's
        expected: KeyId | None,
    ) -> Verdict:
        """Return the desk's verdict; nobody is asked about a master here."""
        verdict = self.desk.judge(peer, expected=expected, asks=False)
        if verdict.decision is Decision.PENDING:
            what = f"we do not know the master {peer.name}"
            raise RefusedError(
                what,
                why=f"its key is {peer.key_id}, {peer.key_id.words}",
                hint=f"if that is it, add `--trust-master {peer.key_id}`",
            )
        return verdict

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Tell when somebody there is asked about us."""
        if verdict.decision is Decision.PENDING and verdict.reason is Reason.UNKNOWN:
            self._waits(peer)

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """A question changes nothing."""
