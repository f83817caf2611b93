"""A node's door: strangers are counted, slowed and logged with care.

An `Entry` is one connection on its way in.  It holds a place among the strangers
until its key has proved to be one that we know; a request that waits for a person
holds one of the fewer pending places instead.  Who comes in without being known (first
use, open mode) keeps the stranger's place until both sides have said ok.

When the room is full, the naive door drops the newcomer, and 100 idle connections keep
every honest master out until their deadline.  Ours takes the place of whoever has
waited longest: an honest handshake is over in milliseconds (threat 87).
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import quoted
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.net.doorman import DeskDoorman
from aemesh.policy.lograte import LogRate
from aemesh.policy.strangers import Entrance, StrangerGate
from aemesh.protocol.hello import Purpose

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.model.key import KeyId
    from aemesh.net.doorman import Desk
    from aemesh.net.transport import Connection

_log = logging.getLogger(__name__)
# Whoever is ok for one of these reasons is no stranger.
_KNOWN = frozenset(
    {
        Reason.KNOWN,
        Reason.ACCEPTED,
        Reason.CERTIFIED,
        Reason.PRINCIPAL,
        Reason.TOKEN,
    }
)
# The chance that is dropped by a room that is full, and by no other.
_LATEST = 1.0 - 2.0**-53


class Door:
    """Lets connections in; one for each listener."""

    def __init__(
        self,
        desk: Desk,
        *,
        chance: Callable[[], float],
        linked: Callable[[KeyId], Peer | None],
        make_entry: Callable[[Door, str], Entry] | None = None,
    ) -> None:
        self.desk = desk
        self.gate = StrangerGate()
        self.pending: Counter[str] = Counter()
        self.met: Counter[KeyId] = Counter()  # whose handshake here is under way
        self.linked = linked
        self.strangers: dict[Entry, None] = {}  # the one that came first is first
        self._chance = chance
        self._make_entry = make_entry or Entry
        self._rate = LogRate()

    def enter(self, connection: Connection) -> Entry | None:
        """Return the entry of a new connection, or None: then just close it."""
        source = connection.remote.source
        now = trio.current_time()
        entrance = self.gate.enter(source, now=now, chance=self._chance())
        if entrance is Entrance.ROOM_FULL and (oldest := self._oldest()):
            oldest.give_place()
            entrance = self.gate.enter(source, now=now, chance=_LATEST)
        if entrance is Entrance.ADMIT:
            return self._make_entry(self, source)
        self.log("%s was not let in: %s", connection.remote, entrance.value)
        return None

    def _oldest(self) -> Entry | None:
        """Return the stranger that came first; one at a peer's address is none."""
        trusts = self.gate.trusts
        return next((one for one in self.strangers if not trusts(one.source)), None)

    def log(
        self,
        message: str,
        *args: object,
        level: int = logging.INFO,
        error: BaseException | None = None,
    ) -> None:
        """Log a line about strangers, at a bounded rate."""
        turn = self._rate.turn(now=trio.current_time())
        if turn.left_out:
            _log.info("%d more lines about strangers were left out", turn.left_out)
        if turn.write:
            _log.log(level, message, *args, exc_info=error)


class Entry(DeskDoorman):
    """One connection on its way in; the doorman of its handshake."""

    answers = False  # whether questions are answered here

    def __init__(self, door: Door, source: str) -> None:
        super().__init__(door.desk)
        self._door = door
        self.source = source
        self._stranger = True
        self._pending = False
        self._skew_told = False
        self._met: KeyId | None = None
        self._passing = False
        self.scope = trio.CancelScope()  # of its handshake
        door.strangers[self] = None

    def judge(
        self, peer: Peer, *, purpose: Purpose, skew: float, expected: KeyId | None
    ) -> Verdict:
        """Return the desk's verdict; a stream is only for whom we are linked to."""
        if self._met is None:
            self._met = peer.key_id
            self._door.met[peer.key_id] += 1
        if purpose is Purpose.ASK and not self.answers:
            return Verdict(Decision.NO, Reason.ROLE, "only a master answers")
        # What is only asked changes nothing, and neither does a stream.
        self._passing = purpose is not Purpose.CONTROL
        if purpose is Purpose.STREAM:
            link = self._door.linked(peer.key_id)
            if link is None:
                return Verdict(Decision.NO, Reason.UNKNOWN, "streams need a link first")
            peer = replace(peer, principal=link.principal)  # the link proved it
        verdict = self.desk.judge(peer, expected=expected)
        pending = verdict.decision is Decision.PENDING
        if pending and not self._wait_room():
            return Verdict(Decision.NO, Reason.FULL, "too many requests wait here")
        if pending or verdict.reason in _KNOWN:
            self._known()
        self._tell_skew(peer, skew)
        return verdict

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Keep what an ok is worth keeping of; who only passes leaves no trace."""
        if not self._passing:
            super().commit(peer, verdict)

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what the peer says of us."""
        super().heard(peer, verdict)
        if verdict.reason is Reason.CLONE:
            ours = peer.role.other.value
            self._door.log(
                "%s %s refuses this %s: its key is used in two places, %s "
                "and here.  Remove `%s/` from the state directory of one of them; "
                "it makes its own key",
                peer.role.value,
                peer.name,
                ours,
                quoted(verdict.detail),
                ours,
                level=logging.WARNING,
            )

    def fail(self, why: str) -> None:
        """The connection came to nothing: its source pays."""
        now = trio.current_time()
        self._door.gate.blame(self.source, now=now)
        self._door.log("%s came to nothing: %s", self.source, why)

    def give_place(self) -> None:
        """End the handshake: somebody new has the place."""
        self._known()
        self.scope.cancel()

    def done(self) -> None:
        """Give back whatever place the entry holds."""
        self._known()
        if self._met is not None:
            self._door.met -= Counter({self._met: 1})  # drops what is zero
            self._met = None
        if self._pending:
            self._pending = False
            self._door.pending -= Counter({self.source: 1})  # drops what is zero

    def _known(self) -> None:
        if self._stranger:
            self._stranger = False
            del self._door.strangers[self]
            self._door.gate.leave(self.source)

    def _wait_room(self) -> bool:
        if self._pending:
            return True
        pending = self._door.pending
        if (
            pending.total() >= limits.PENDING_LINKS
            or pending[self.source] >= limits.STRANGERS_PER_SOURCE
        ):
            return False
        self._pending = True
        pending[self.source] += 1
        return True

    def _tell_skew(self, peer: Peer, skew: float) -> None:
        if abs(skew) > limits.CLOCK_SKEW_AFTER and not self._skew_told:
            self._skew_told = True
            message = "the clock of %s is off by %.0f s"
            self._door.log(message, peer.name, skew, level=logging.WARNING)
