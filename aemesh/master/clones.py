"""Looks after a linked worker's key when it is announced by a second process.

An announcement may be an old one, said again by anybody; so the place that it names is
dialled, and only a handshake there is proof (`aemesh.policy.clones`).  The link that is
up stays, whatever comes of it.  Both places are told: the one that is linked by a
notice, the other by a verdict that names the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.master.history import History
from aemesh.master.record import WorkerRecord
from aemesh.model.address import Address
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.net.doorman import Desk, DeskDoorman, Doorman
from aemesh.net.shake import Shaker
from aemesh.net.transport import Network
from aemesh.policy.clones import Life, Lives, Twins, twins
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.model.machine import Announcement
    from aemesh.net.link import Link

_log = logging.getLogger(__name__)
# A link is looked at this often while it has to show that it lives.
_LOOK_EVERY = 0.25


@dataclass(slots=True, kw_only=True)
class CloneWatch:
    """Finds out whether a key is used in two places; one for each worker."""

    record: WorkerRecord
    network: Network
    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    history: History
    dialable: Callable[[Address], bool]
    lives: Lives = field(default_factory=Lives)
    found: bool = False  # another process lives beside the one that is, or was, linked
    _news: trio.Event = field(default_factory=trio.Event)

    def hear(self, announcement: Announcement) -> None:
        """The key was announced, perhaps by somebody who says an old thing again."""
        self.lives.hear(announcement, trio.current_time())
        self._news.set()
        self._news = trio.Event()

    def explains(self, announcement: Announcement) -> bool:
        """Whether a process that lives said this, although another said more since."""
        link = self.record.link
        if link is None or not self.lives.is_last_word(announcement):
            return False
        ours, run = link.peer.run, announcement.run
        return bool(ours) and (run == ours or self.lives.are_twins(ours, run))

    async def run(self, link: Link) -> None:
        """Look after each process that is announced beside the linked one."""
        self.found = False
        self.lives.start_anew()
        while True:
            news = self._news
            now, place = trio.current_time(), link.connection.remote
            for life in self.lives.suspects(link.peer.run, place, now):
                await _wait_alive(link, life)
                self.lives.looked(life, trio.current_time())
                await self._look(link, life)
            await news.wait()

    async def refuse(self, older: Link, link: Link) -> None:
        """A second process of the key has dialled us: tell it here, there, and there.

        Whoever asks has seen both alive; the link that is up stays.
        """
        first, second = older.connection.remote, link.connection.remote
        with suppress(UnreachableError):
            await link.tell(wire.Clone(address=str(first), you=str(second)))
        await self._tell(older, link.peer.run, second)

    async def _look(self, link: Link, life: Life) -> None:
        """Dial the second place; refuse whoever proves there to be a twin."""
        place = link.connection.remote
        for address in self.lives.elsewhere(life, link.peer.run, place):
            if not self.dialable(address):
                continue
            caller = _SecondCaller(self.desk, link.peer.run, life, place)
            try:
                await self._shake(address, caller)
            except AemeshError as exc:
                _log.debug("a second place of %s: %s", self.record.name, exc)
            if caller.found:
                await self._tell(link, life.announcement.run, address)
            if caller.judged:
                return

    async def _shake(self, address: Address, caller: Doorman) -> None:
        connection = await self.network.dial(address)
        key_id = self.record.key_id
        channel = await self.shaker(caller).connect(
            connection, expected=key_id, purpose=Purpose.CONTROL
        )
        # The verdict was no, so it does not come to this.
        await trio.aclose_forcefully(channel.connection.stream)

    async def _tell(self, link: Link, run: str, address: Address) -> None:
        """Mark the record, and tell it here and there, once for each pair."""
        record, here = self.record, link.connection.remote
        self.found = True
        record.clone = f"its key is used at {address} too: a copied state directory?"
        if not self.lives.set_twins(link.peer.run, run):
            return
        text = (
            f"{record.name}'s key is used in two places: {here} (linked) and "
            f"{address}: a copied state directory?"
        )
        self.history.add("worker.clone", text, worker=record.name)
        notice = wire.Clone(address=str(address), you=str(here))
        with suppress(UnreachableError):
            await link.tell(notice)


class _SecondCaller(DeskDoorman):
    """The doorman of a handshake with the second place: it never says ok."""

    def __init__(self, desk: Desk, run: str, life: Life, place: Address) -> None:
        super().__init__(desk)
        self._run = run
        self._life = life
        self._place = place
        self.judged = False
        self.found = False

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,  # noqa: ARG002 - the protocol's
        expected: KeyId | None,
    ) -> Verdict:
        """Refuse a twin; whoever is none is hung up on, for it did nothing wrong."""
        self.judged = True
        verdict = self.desk.judge(peer, expected=expected)
        if verdict.decision is Decision.NO:
            return verdict
        if peer.run != self._life.announcement.run:
            msg = f"{peer.address} is another process than was announced there"
            raise RefusedError(msg)
        self.found = True
        detail = f"this key is linked at {self._place}: a copied state directory?"
        return Verdict(Decision.NO, Reason.CLONE, detail)

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Nothing comes of it that is worth keeping."""

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """It has nothing to say that matters here."""


async def _wait_alive(link: Link, life: Life) -> None:
    """Wait until the linked process is heard after the other one was announced.

    If it never is, the link ends, and whoever waits here with it.
    """
    while True:
        seen = twins(
            link.peer.run,
            life.announcement.run,
            came_at=life.heard_at,
            heard_at=link.heard_at,
            now=trio.current_time(),
        )
        if seen is Twins.TWO:
            return
        await trio.sleep(_LOOK_EVERY)
