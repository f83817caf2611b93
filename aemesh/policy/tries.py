"""How often a source may show the four words of a first meeting in vain.

Who stands between has one guess in 2**40 at each meeting, and a person who is asked
again and again says yes by habit.  So meetings that nobody confirmed are counted by
source: after `limits.PAIRINGS` of them within `limits.PAIRINGS_WITHIN` there is none
for `limits.PAIRINGS_SHUT_AFTER`, and the number of each is shown (threat 29).
"""

from __future__ import annotations

from collections import OrderedDict

from aemesh import limits

_Times = tuple[float, ...]


class Tries:
    """Counts pairings that came to nothing, by source."""

    def __init__(self) -> None:
        # source -> when its last tries began; the one that tried longest ago goes first
        self._tries: OrderedDict[str, _Times] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Tries of {len(self._tries)} sources>"

    def begin(self, source: str, now: float) -> int | None:
        """Count a pairing of `source`; return the number of this try, or None.

        None: it has had its tries, and there is no pairing now.  To ask while it is
        shut out makes that no longer.
        """
        times = self._tries.get(source, ())
        if _is_shut(times, now):
            return None
        recent = tuple(at for at in times if now - at < limits.PAIRINGS_WITHIN)
        self._tries[source] = (*recent, now)
        self._tries.move_to_end(source)
        if len(self._tries) > limits.PAIRING_SOURCES:
            self._tries.popitem(last=False)
        return len(recent) + 1

    def confirm(self, source: str) -> None:
        """A person said yes to a pairing of `source`: it begins anew."""
        self._tries.pop(source, None)

    def check(self) -> None:
        """Assert what always holds."""
        assert len(self._tries) <= limits.PAIRING_SOURCES
        for times in self._tries.values():
            assert 0 < len(times) <= limits.PAIRINGS
            assert list(times) == sorted(times)
            assert times[-1] - times[0] < limits.PAIRINGS_WITHIN


def _is_shut(times: _Times, now: float) -> bool:
    full = len(times) >= limits.PAIRINGS
    return full and now - times[-1] < limits.PAIRINGS_SHUT_AFTER
