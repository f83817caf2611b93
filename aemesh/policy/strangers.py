"""Who may come in before anybody knows who it is: caps, and a price for noise.

Three bounds, as sshd has them: so many unauthenticated connections per source, a
random early drop over all of them (MaxStartups 10:30:100), and a penalty for sources
whose connections came to nothing.  A source that holds a trusted link keeps one place
whatever happens, so that a storm cannot shut out a master that is known (threat 88).
What comes from there is most likely the streams of that link: they have places of their
own, which the crowd does not take, nor they the crowd's.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict

from aemesh import limits


class Entrance(enum.Enum):
    """What happens to a new connection."""

    ADMIT = "admit"
    SOURCE_FULL = "source has too many"
    ROOM_FULL = "too many strangers"
    PENALTY = "source is shut out for a while"


class StrangerGate:
    """Counts connections that have not authenticated yet, by source."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._trusted: Counter[str] = Counter()
        # source -> when its penalty ends; the one touched longest ago goes first
        self._until: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<StrangerGate {self._inside.total()} inside, {len(self._until)} shut>"

    @property
    def strangers(self) -> int:
        """How many are inside from sources without a trusted link."""
        inside = self._inside.items()
        return sum(count for source, count in inside if not self.trusts(source))

    def enter(self, source: str, *, now: float, chance: float) -> Entrance:
        """Judge a connection of `source`; `chance` is uniform in [0, 1).

        After ADMIT the caller owes one `leave`.
        """
        verdict = self._judge(source, now, chance)
        if verdict is Entrance.ADMIT:
            self._inside[source] += 1
        return verdict

    def leave(self, source: str) -> None:
        """Take back one `enter`: it authenticated, or it is gone."""
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]

    def blame(self, source: str, *, now: float) -> None:
        """Count a connection that came to nothing against its source."""
        start = max(self._until.pop(source, now), now)
        latest = now + limits.PENALTY_CAP_AFTER
        self._until[source] = min(start + limits.PENALTY_AFTER, latest)
        if len(self._until) > limits.PENALTY_SOURCES:
            self._until.popitem(last=False)

    def trust(self, source: str) -> None:
        """A trusted link to `source` is up; the caller owes one `untrust`."""
        self._trusted[source] += 1
        self._until.pop(source, None)

    def untrust(self, source: str) -> None:
        """The trusted link is gone."""
        self._trusted[source] -= 1
        if not self._trusted[source]:
            del self._trusted[source]

    def trusts(self, source: str) -> bool:
        """Whether a trusted link to `source` is up."""
        return source in self._trusted

    def check(self) -> None:
        """Assert what always holds."""
        assert all(n > 0 for n in self._inside.values())
        assert len(self._until) <= limits.PENALTY_SOURCES

    def _judge(self, source: str, now: float, chance: float) -> Entrance:
        inside, trusted = self._inside[source], self.trusts(source)
        if inside == 0 and trusted:
            return Entrance.ADMIT
        # A penalty begins to shut out when it has grown: one failed handshake of
        # an honest peer must not cost it the next.
        if self._until.get(source, now) - now > limits.PENALTY_CAP_AFTER / 2:
            return Entrance.PENALTY
        most = limits.LINKED_PER_SOURCE if trusted else limits.STRANGERS_PER_SOURCE
        if inside >= most:
            return Entrance.SOURCE_FULL
        if not trusted and chance < drop_chance(self.strangers):
            return Entrance.ROOM_FULL
        return Entrance.ADMIT


def drop_chance(inside: int) -> float:
    """Return how likely a new connection is dropped with `inside` strangers (sshd)."""
    if inside < limits.STRANGERS_START:
        return 0.0
    if inside >= limits.STRANGERS_FULL:
        return 1.0
    span = limits.STRANGERS_FULL - limits.STRANGERS_START
    rise = (1.0 - limits.STRANGERS_RATE) * (inside - limits.STRANGERS_START) / span
    return limits.STRANGERS_RATE + rise
