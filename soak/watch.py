"""Looking from outside whether what must hold holds, all the time.

What is looked at: what ``aemesh … --json`` says on the master's machine, the process
tables and sockets of the hosts, and what the analyses print.  What may be wrong for a
moment has a grace time, which is named here; what is wrong for longer is a `Fall`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import trio

from aemesh import limits
from aemesh.testing.lab import LabError
from soak import analysis
from soak.stage import GROUPS, LAPTOP, WORKERS, Stage
from tests.lab.office import engine_pids

if TYPE_CHECKING:
    from collections.abc import Callable

# From the end of its lease to the end of its last process; looked at on a machine that
# is busy with all the others (two seconds).
ENDING_AFTER = limits.TERM_AFTER + limits.GONE_AFTER + 2.0
# How long an engine may be there that the master knows nothing of: the worker's silence
# and patience, and then its end.
LEASELESS_AFTER = limits.LOST_AFTER + limits.ORPHANED_JOB_AFTER + ENDING_AFTER
# Two engines of one worker, one of them on its way out.
TWO_ENGINES_AFTER = ENDING_AFTER
# 24 pieces of 0.15 s, met by faults that cost 10 s each; longer is hanging.
ANALYSIS_WITHIN = 150.0
# From the last fault until all serve again: a sleep is noticed, a dial waits 5 s, the
# last try of a join was 30 s ago.
SETTLED_WITHIN = 90.0
LOOK_EVERY = 1.0
# From the start of `aemesh run` until it has what it wanted of the master.
CONNECTED_AFTER = 4.0
_SHOWN = 200
SCRIPT = "/mnt/aemesh/checkout/soak/analysis.py"


@dataclass(frozen=True, slots=True)
class Fall:
    """Something that must never be."""

    what: str
    at: float  # seconds since the beginning

    def __str__(self) -> str:
        """Tell it in one line."""
        return f"{self.at:.1f} s: {self.what}"


class Watch:
    """Looks, counts, and notes each fall once."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.falls: list[Fall] = []
        self.done = dict.fromkeys(GROUPS, 0)
        self.unanswered = 0
        self.looks = 0
        self._stage = stage
        self._say = say
        self._began = trio.current_time()
        self._since: dict[tuple[str, str], float] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._seen_at = float("-inf")

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return trio.current_time() - self._began

    def fall(self, what: str) -> None:
        """Note what must never be, once."""
        if what not in (one.what for one in self.falls):
            self.falls.append(Fall(what, self.now))
            self._say(f"# FALL {self.falls[-1]}")

    async def look(self) -> None:
        """Look at all again and again, until cancelled."""
        while True:
            await self._ask_master()
            for name in WORKERS:
                await self._look_at(name)
            self.looks += 1
            await trio.sleep(LOOK_EVERY)

    async def analyse(self, group: str, until: Callable[[], bool]) -> None:
        """Run one analysis after the other on a group; each must end right."""
        salt = ord(group) * 1000
        while not until():
            await self._stage.master_up.wait()
            salt += 1
            await self._analyse(group, salt)

    # --- inside ---

    async def _analyse(self, group: str, salt: int) -> None:
        laptop, began = self._stage.office.laptop, trio.current_time()
        argv = [*laptop.aemesh, "run", "--group", group, SCRIPT, str(salt)]
        try:
            done = await laptop.run(argv, check=False, within=ANALYSIS_WITHIN)
        except LabError:
            self.fall(f"the analysis {salt} of {group} hangs")
            return
        # Who asks for the group at that very moment is told that nobody answers; an
        # analysis that has begun goes on, for its engine does (L5).
        asked = 0 <= self._stage.killed_at - began < CONNECTED_AFTER
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        if done.returncode == 0:
            found = json.loads(done.stdout.splitlines()[-1])
            if found["result"] != analysis.expected(salt):
                self.fall(f"analysis {salt} of {group} came to {found['result']}")
            self.done[group] += 1
        elif asked:
            self.unanswered += 1
            self._say(f"# {salt} of {group} met no master: {said}")
        else:
            self.fall(
                f"analysis {salt} of {group} ended with {done.returncode}: {said}"
            )

    async def _ask_master(self) -> None:
        stage = self._stage
        life = stage.lives
        if not stage.master_up.is_set():
            return
        try:
            (status,) = await stage.office.ask("status")
        except LabError as error:
            if stage.master_up.is_set() and stage.lives == life:
                self.fall(f"the master does not answer: {error}")
            return
        workers, groups = status["workers"], status["groups"]
        names = [one["name"] for one in workers]
        self._lasts("twice", "two workers of one name", len(set(names)) < len(names))
        members = [name for group in groups for name in group["members"]]
        for name in set(members):
            if members.count(name) > 1:
                self.fall(f"{name} is in two groups")
        self._seen = {one["name"]: one for one in workers}
        self._seen_at = trio.current_time()

    async def _look_at(self, name: str) -> None:
        """Look what runs on a host, and whether anybody wants it."""
        host = self._stage.office.host(name)
        if any(deed.fault.value == "sleep" for deed in self._stage.trouble[name].deeds):
            self._forget(name)
            return  # nothing runs there, and nothing can end
        try:
            engines = len(await engine_pids(host))
        except LabError:
            return  # it has another address just now
        self._lasts(
            name,
            f"{name} has {engines} engines",
            engines > 1,
            grace=TWO_ENGINES_AFTER,
        )
        fresh = trio.current_time() - self._seen_at < 2 * LOOK_EVERY + 1.0
        view = self._seen.get(name)
        leased = view is not None and view["group"] is not None
        knows = fresh and self._stage.calm_for(LAPTOP) > LEASELESS_AFTER
        self._lasts(
            name,
            f"{name} has an engine and no lease",
            engines > 0 and knows and not leased,
            grace=LEASELESS_AFTER,
        )

    def _lasts(self, who: str, what: str, wrong: bool, *, grace: float = 0.0) -> None:
        """Note what is wrong for longer than its grace time."""
        key = (who, what.translate(str.maketrans("", "", "0123456789")))
        if not wrong:
            self._since.pop(key, None)
            return
        since = self._since.setdefault(key, trio.current_time())
        if trio.current_time() - since > grace:
            self.fall(f"{what}, for more than {grace:g} s")

    def _forget(self, who: str) -> None:
        for key in [key for key in self._since if key[0] == who]:
            del self._since[key]

    async def settled(self) -> None:
        """Wait until all serve again, no group empty; or note who does not."""
        last = ""
        with trio.move_on_after(SETTLED_WITHIN):
            while (last := await self._unsettled()) != "":
                await trio.sleep(LOOK_EVERY)
            return
        self.fall(f"not settled in {SETTLED_WITHIN:g} s: {last}")

    async def _unsettled(self) -> str:
        try:
            (status,) = await self._stage.office.ask("status")
        except LabError as error:
            return str(error)
        views = {one["name"]: one for one in status["workers"]}
        free = [
            f"{name}: {views[name]['state']} {views[name]['note']}"
            if name in views
            else f"{name} is not known"
            for name in WORKERS
            if name not in views or views[name]["state"] != "leased"
        ]
        empty = [one["name"] for one in status["groups"] if not one["members"]]
        free += [f"group {name} is empty" for name in empty]
        members = sum(len(one["members"]) for one in status["groups"])
        if not free and members != len(WORKERS):
            free.append(f"{members} members")
        return "; ".join(free)

    async def nothing_left(self) -> None:
        """After all was ended, nothing may run on any host."""
        with trio.move_on_after(ENDING_AFTER):
            while any(host.processes() for host in self._stage.office.lab):
                await trio.sleep(0.2)
        for host in self._stage.office.lab:
            if left := host.processes():
                told = "; ".join(_command(pid) for pid in sorted(left))
                self.fall(f"{len(left)} processes are left on {host.name}: {told}")


def _command(pid: int) -> str:
    """Return what a process is, in a few words."""
    try:
        return f"{pid} {' '.join(psutil.Process(pid).cmdline())[:_SHOWN]}"
    except psutil.Error:
        return f"{pid} (gone)"
