"""One key, two lives: is it a copied state directory, or a node that was started anew?

Every process of a node draws a `run` when it starts, and says it in HELLO and in its
announcements.  A key that shows two of them may be

- a worker that was killed and started again, whose old link is not noticed as dead;
- an announcement of a process that is long gone, which anybody can say again;
- one key in two places, which is what must be told.

The naive way, to accuse whoever shows another run, accuses the first two as well.
What is gone says nothing any more.  So both must show that they live: the second by a
handshake, which proves its key and its run (an announcement proves neither that its
process lives nor where), and the first by being heard on its link `CLONE_AFTER` later.
What a dead one had sent has come by then; TCP tells of a killed process at once.

Times are on trio's clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.model.machine import Announcement

if TYPE_CHECKING:
    from aemesh.model.address import Address
    from aemesh.model.key import KeyId


class Twins(enum.Enum):
    """What two signs of life of one key come to."""

    ONE = "one process, or nobody can tell"
    WAIT = "the first may be dead, and not yet noticed"
    TWO = "two processes live"
    GONE = "the first was not heard since the second came"


def twins(
    first: str, second: str, *, came_at: float, heard_at: float, now: float
) -> Twins:
    """Judge a link of run `first`, last heard at `heard_at`, beside a newer `second`.

    `second` showed itself at `came_at`.  A process says its run always or, an older
    one, never: who says none is not the one that said its own.
    """
    if first == second:
        return Twins.ONE
    if heard_at >= came_at + limits.CLONE_AFTER:
        return Twins.TWO
    if now >= came_at + limits.SUSPECT_AFTER:
        return Twins.GONE
    return Twins.WAIT


class SecondLink(enum.Enum):
    """What becomes of a second link of the same master's key."""

    TAKES = "it takes the place of the first"
    WAITS = "whether the first lives will show"
    REFUSED = "the first lives, and holds its place"
    SURPLUS = "both sides dialled, and the first is the one that counts"


_SECOND_LINK = {
    Twins.ONE: SecondLink.TAKES,
    Twins.GONE: SecondLink.TAKES,
    Twins.WAIT: SecondLink.WAITS,
    Twins.TWO: SecondLink.REFUSED,
}


def second_link(  # noqa: PLR0913 - two links and the time, by name
    first: str,
    second: str,
    *,
    came_at: float,
    heard_at: float,
    now: float,
    yields: bool = False,
) -> SecondLink:
    """Return what becomes of a newer link of a peer that has one; as `twins`.

    A node that crashed and was started again gets in after `SUSPECT_AFTER` at the
    latest; one whose key was copied does not put out the one that is linked.

    `yields`: see the function of this name.  Such a second link of one process takes
    the place only of a first that is dead, whatever the other side has seen first.
    """
    seen = twins(first, second, came_at=came_at, heard_at=heard_at, now=now)
    if seen is not Twins.ONE or not yields:
        return _SECOND_LINK[seen]
    if heard_at >= came_at + limits.CLONE_AFTER:
        return SecondLink.SURPLUS
    gone = now >= came_at + limits.SUSPECT_AFTER
    return SecondLink.TAKES if gone else SecondLink.WAITS


def yields(first_dialler: KeyId, second_dialler: KeyId) -> bool:
    """Whether the second of two links of one pair gives way to the first.

    When both sides dial at one time, each may see the two links in another order; if
    each kept its newest, both would go.  So the one counts that the smaller
    fingerprint has dialled.  Of two that one side dialled the newer counts, for that
    side knows what became of the older.
    """
    return first_dialler.digest < second_dialler.digest


@dataclass(frozen=True, slots=True)
class Life:
    """What was announced last of one process, and when that was heard."""

    announcement: Announcement
    heard_at: float


@dataclass(slots=True)
class Lives:
    """The processes of one key that were announced; the latest few."""

    _lives: dict[str, Life] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _twins: set[frozenset[str]] = field(default_factory=set)

    def hear(self, announcement: Announcement, now: float) -> None:
        """Take in a valid announcement of this key, a replayed one as well."""
        run = announcement.run
        known = self._lives.pop(run, None)
        if known is not None and known.announcement.signed_at > announcement.signed_at:
            announcement = known.announcement
        self._lives[run] = Life(announcement, now)
        if len(self._lives) > limits.LIVES_SEEN:
            gone = next(iter(self._lives))
            del self._lives[gone]
            self._looked.pop(gone, None)

    def is_last_word(self, announcement: Announcement) -> bool:
        """Whether its own process said nothing later; then it is out of no archive."""
        life = self._lives.get(announcement.run)
        return life is not None and life.announcement == announcement

    def suspects(self, run: str, place: Address, now: float) -> list[Life]:
        """Return the lives that may be twins of the process linked at `place`.

        Each is worth one look, by a handshake, and another when it is heard of again
        `CLONE_AGAIN_AFTER` later, unless it proved to be one: an old announcement
        costs a dial, and says nothing.  One that names only where the linked one is
        anyway is none.
        """
        if not run:
            return []
        return [
            life
            for other, life in self._lives.items()
            if other
            and other != run
            and self.elsewhere(life, run, place)
            and self._is_worth_a_look(run, life, now)
        ]

    def elsewhere(self, life: Life, run: str, place: Address) -> tuple[Address, ...]:
        """Return where a life says it is, less where the process linked is itself."""
        linked = self._lives.get(run)
        here = {place} if linked is None else {place, *linked.announcement.addresses}
        return tuple(one for one in life.announcement.addresses if one not in here)

    def start_anew(self) -> None:
        """A new link is up: each life is worth a look again."""
        self._looked.clear()

    def looked(self, life: Life, now: float) -> None:
        """Somebody looks after this life now."""
        if life.announcement.run in self._lives:
            self._looked[life.announcement.run] = now

    def are_twins(self, run: str, other: str) -> bool:
        """Whether both were seen alive at one time."""
        return frozenset({run, other}) in self._twins

    def set_twins(self, run: str, other: str) -> bool:
        """Both were seen alive at one time; return whether that is news."""
        pair = frozenset({run, other})
        if pair in self._twins:
            return False
        if len(self._twins) >= limits.LIVES_SEEN:
            self._twins.clear()  # told once more, at worst
        self._twins.add(pair)
        return True

    def check(self) -> None:
        """Assert what always holds."""
        assert len(self._lives) <= limits.LIVES_SEEN
        assert self._looked.keys() <= self._lives.keys()
        assert len(self._twins) <= limits.LIVES_SEEN

    def _is_worth_a_look(self, run: str, life: Life, now: float) -> bool:
        other = life.announcement.run
        looked_at = self._looked.get(other)
        if looked_at is None:
            return True
        if self.are_twins(run, other):
            return False  # it was told, there and here
        again_at = looked_at + limits.CLONE_AGAIN_AFTER
        return now >= again_at and life.heard_at > looked_at
