"""Who pretends to be a worker: a bounded table of what could not be proved.

One line for each name and each kind of lie.  The addresses are those that the lie
itself gave (its TXT, SRV, A and AAAA records), or, where another key answered, the one
that was dialled: from where a packet came is not known here.

Names cost nothing to make up, so a flood of lies about nobody pushes out only its like;
what concerns a worker that is trusted stays.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aemesh import limits
from aemesh.model.view import ImposterView


class Lie(enum.Enum):
    """What kind of lie it is."""

    FORGED = "forged"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    OTHER_KEY = "another key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One lie: whose name it took, what it claims, and why it is not believed."""

    subject: str  # whose name, for counting
    lie: Lie
    name: str
    key: str
    addresses: tuple[str, ...]
    reason: str


@dataclass(slots=True)
class _Line:
    seen: Seen  # the latest
    first_at: float
    last_at: float
    ours: bool
    addresses: tuple[str, ...] = ()
    times: int = 0


class Imposters:
    """The imposters that a master has seen."""

    def __init__(self) -> None:
        # The one that was seen longest ago comes first.
        self._lines: dict[tuple[str, Lie], _Line] = {}

    def __repr__(self) -> str:
        return f"<Imposters {len(self._lines)} lines>"

    def see(self, seen: Seen, *, now: float, ours: bool) -> int:
        """Count one more; return how many of this kind its subject has had.

        `ours`: it took the name of a worker that is trusted.
        """
        index = (seen.subject, seen.lie)
        line = self._lines.pop(index, None)
        if line is None:
            self._make_room()
            line = _Line(seen, first_at=now, last_at=now, ours=ours)
        self._lines[index] = line
        line.seen, line.last_at, line.ours = seen, now, ours
        line.times += 1
        # The latest first; the older ones may be the liar's as well.
        both = tuple(dict.fromkeys((*seen.addresses, *line.addresses)))
        line.addresses = both[: limits.ANNOUNCED_ADDRESSES]
        return line.times

    def views(self) -> tuple[ImposterView, ...]:
        """Return the table, the latest first."""
        return tuple(
            ImposterView(
                name=line.seen.name,
                key=line.seen.key,
                addresses=line.addresses,
                reason=line.seen.reason,
                first_at=line.first_at,
                last_at=line.last_at,
                times=line.times,
            )
            for line in reversed(self._lines.values())
        )

    def check(self) -> None:
        """Assert what always holds."""
        assert len(self._lines) <= limits.IMPOSTERS_SEEN

    def _make_room(self) -> None:
        if len(self._lines) < limits.IMPOSTERS_SEEN:
            return
        others = (index for index, line in self._lines.items() if not line.ours)
        del self._lines[next(others, next(iter(self._lines)))]
