"""What goes wrong, when and where: a list that one seed makes, and that a file can say.

Nothing here looks at a clock or at the office, so that the same seed tells the same
story, and a story that found something can be cut down by hand and told again.
"""

from __future__ import annotations

import enum
import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Fault(enum.Enum):
    """What can go wrong; `Deed.lasts` is how long it stays so."""

    KILL_ENGINE = "kill-engine"  # one process of Dask's
    KILL_AGENT = "kill-agent"  # kill -9; started again after a while
    KILL_WARDEN = "kill-warden"  # the same
    CUT = "cut"  # the cable is out
    LOSS = "loss"  # of 20 % of all frames
    SLEEP = "sleep"  # the lid is closed, all stops
    ADDRESS = "address"  # the machine gets another one, at once
    LEAVE = "leave"  # its owner ends it; started again after a while
    MOVE = "move"  # to another group
    CLOCK = "clock"  # the time of day is set, `by` seconds off
    KILL_MASTER = "kill-master"  # kill -9; started again after a while


# How often each comes, beside the others.
_WEIGHTS = {
    Fault.KILL_ENGINE: 3,
    Fault.KILL_AGENT: 2,
    Fault.KILL_WARDEN: 2,
    Fault.CUT: 4,
    Fault.LOSS: 3,
    Fault.SLEEP: 2,
    Fault.ADDRESS: 2,
    Fault.LEAVE: 3,
    Fault.MOVE: 5,
    Fault.CLOCK: 2,
    Fault.KILL_MASTER: 1,
}
_LASTS = {
    Fault.KILL_AGENT: (0.5, 6.0),
    Fault.KILL_WARDEN: (0.5, 6.0),
    Fault.CUT: (0.5, 12.0),
    Fault.LOSS: (4.0, 15.0),
    Fault.SLEEP: (1.0, 15.0),
    Fault.LEAVE: (1.0, 8.0),
    Fault.CLOCK: (3.0, 15.0),
    Fault.KILL_MASTER: (0.5, 3.0),
}
# From one to the next, in seconds.
_PAUSES = (2.0, 7.0)
# Then it has its rest: so that a group has somebody, and a master time for its work.
_REST = {Fault.KILL_MASTER: 20.0}
_WORKER_REST = 8.0
# Workers that something is wrong with at one time, of eight.
_AT_ONCE = 3
_CLOCKS = (-86400.0, -3600.0, -90.0, 90.0, 3600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that goes wrong; times are seconds since the beginning."""

    at: float
    fault: Fault
    on: str
    lasts: float = 0.0
    group: str = ""
    by: float = 0.0

    def __str__(self) -> str:
        """One line of a story file."""
        words = {k: v for k, v in asdict(self).items() if v not in ("", 0.0)}
        return json.dumps({**words, "fault": self.fault.value})

    @property
    def ends(self) -> float:
        """When it is over."""
        return self.at + self.lasts


def tell(
    seed: int,
    seconds: float,
    *,
    master: str,
    workers: Sequence[str],
    groups: Sequence[str],
) -> list[Deed]:
    """Return the story of a seed: the same words, the same story."""
    rng = random.Random(seed)  # noqa: S311 - a story, no secret
    story: list[Deed] = []
    free_at = dict.fromkeys((master, *workers), 0.0)
    now = 0.0
    while (now := now + rng.uniform(*_PAUSES)) < seconds:
        fault = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        hosts = [master] if fault is Fault.KILL_MASTER else list(workers)
        free = [host for host in hosts if free_at[host] <= now]
        # All is drawn before anything is left out: stories of one seed stay alike.
        lasts = rng.uniform(*_LASTS.get(fault, (0.0, 0.0)))
        group, by, choice = rng.choice(groups), rng.choice(_CLOCKS), rng.random()
        busy = sum(free_at[host] > now for host in workers)
        if not free or (hosts != [master] and busy >= _AT_ONCE):
            continue
        host = free[int(choice * len(free))]
        deed = Deed(
            round(now, 2),
            fault,
            host,
            lasts=round(lasts, 2),
            group=group if fault is Fault.MOVE else "",
            by=by if fault is Fault.CLOCK else 0.0,
        )
        story.append(deed)
        free_at[host] = deed.ends + _REST.get(fault, _WORKER_REST)
    return story


def read(lines: Iterable[str]) -> Iterator[Deed]:
    """Return the story in a file; what is empty or begins with # is passed over."""
    for line in lines:
        if line.strip() and not line.startswith("#"):
            words = json.loads(line)
            yield Deed(**{**words, "fault": Fault(words["fault"])})
