"""``make bench``: measures the budgets in the lab, in one run, and writes them down.

    python -m bench.run [--times N] [--idle SECONDS] [--only PART …] [--write [PAGE]]

Ours and the peer's take turns, so that what else the machine does meets both.
"""

# The bench prints, and starts programs of its own; its page has an en dash.

# It prints, and writes a page of long lines.
# ruff: noqa: T201, E501

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import trio

from aemesh.testing.lab import Host, open_lab, reexec_in_user_namespace
from bench import join, warm
from bench.forward import forwarding
from bench.idle import Family, idle_costs
from bench.losses import losses
from bench.peers import moving, peers
from bench.rates import rates
from bench.runs import runs
from bench.sharing import sharing
from bench.table import Measured, Row, as_markdown, as_text
from bench.watched import open_watched

PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
_OFFICE = 5
_HOSTS = 7  # of workers; with the other one eight
_SETTLED_AFTER = 7.0


async def joins(lab_hosts: tuple[Host, ...], times: int) -> list[Row]:
    """Compare the way into a group with Dask's own command, in turns."""
    head, worker, other = lab_hosts[:3]
    tls, took = join.DaskTls(), _Took()
    address = f"tls://{other.ipv4}:8786"
    one, two = (
        ["--nworkers", "1", "--nthreads", "1"],
        ["--nworkers", "2", "--nthreads", "1"],
    )
    async with (
        join.open_master(head) as master,
        join.open_scheduler(other, tls) as peer,
    ):

        async def dask(name: str, words: list[str], processes: int) -> None:
            took.add(
                name,
                await join.join_dask(
                    peer, worker, tls, address=address, words=words, processes=processes
                ),
            )

        for _ in range(times):
            join.forget(worker, head)
            took.add("new", await join.join_ours(master, worker, cores=2))
            await dask("nanny 2", two, 2)
            took.add("known", await join.join_ours(master, worker, cores=2))
            await dask("nanny 1", one, 1)
            took.add("known 1", await join.join_ours(master, worker, cores=1))
            await dask("bare 1", ["--no-nanny", "--nthreads", "1"], 1)
    two_words, bare = "dask worker --nworkers 2", "dask worker --no-nanny (one process)"
    return [
        Row(
            "join: known worker, its 2 processes",
            took.all("known"),
            took.all("nanny 2"),
            two_words,
            1.0,
        ),
        Row(
            "join: known worker, first process",
            took.first("known"),
            took.first("nanny 2"),
            two_words,
            1.0,
        ),
        Row(
            "join: first start ever, its 2 processes",
            took.all("new"),
            took.all("nanny 2"),
            two_words,
            1.0,
        ),
        Row(
            "join: known worker, 1 process",
            took.all("known 1"),
            took.all("nanny 1"),
            "dask worker",
            1.0,
        ),
        Row(
            "join: the same, against Dask without restarts",
            took.all("known 1"),
            took.all("bare 1"),
            bare,
        ),
    ]


async def offices(lab_hosts: tuple[Host, ...], times: int) -> list[Row]:
    """Compare five workers with one, and with five of Dask's own."""
    head, other, *workers = lab_hosts
    workers = workers[:_OFFICE]
    tls, single, group, warm1, warm5 = join.DaskTls(), [], [], [], []
    async with join.open_master(head) as master:
        for _ in range(times):
            single.append((await join.join_many(master, workers[:1], cores=1))[0].all)
            joined = await join.join_many(master, workers, cores=1)
            group.append(max(one.all for one in joined))
    dask1, dask5 = [], []
    async with join.open_scheduler(other, tls) as peer:
        address = f"tls://{other.ipv4}:8786"
        for _ in range(times):
            dask1.append(
                await join.join_dask_many(peer, workers[:1], tls, address=address)
            )
            dask5.append(await join.join_dask_many(peer, workers, tls, address=address))
    for _ in range(times):
        warm1.append(await join.form_group(head, workers[:1]))
        warm5.append(await join.form_group(head, workers))
    cores = os.cpu_count()
    return [
        Row(
            f"group of 5, started at once on these {cores} cores",
            _s(group),
            _s(single),
            "one",
            1.5,
        ),
        Row(
            "group of 5 that wait, from the master's start",
            _s(warm5),
            _s(warm1),
            "one",
            1.5,
        ),
        Row(
            "the same five of Dask's own, started at once", _s(dask5), _s(dask1), "one"
        ),
        Row("group of 5, started at once", _s(group), _s(dask5), "five dask worker"),
    ]


async def warm_workers(lab_hosts: tuple[Host, ...], times: int) -> list[Row]:
    """Measure from the word that a group may have warm workers until they serve it."""
    head, *workers = lab_hosts
    one = workers[:1]
    single = await warm.joins(head, one, cores=1, times=times)
    eight = await warm.joins(head, workers[:8], cores=1, times=times)
    processes = await warm.joins(head, one, cores=8, times=times)
    move = await warm.moves(head, one, times=times)
    move8 = await warm.moves(head, workers[:8], times=times)
    return [
        Row("warm: one worker is assigned, and registered", _s(single)),
        Row("warm: 8 workers, all registered", _s(eight), limit=0.5),
        Row("warm: one worker, its 8 processes registered", _s(processes), limit=0.5),
        Row("warm: one worker moves to another group", _s(move)),
        Row("warm: 8 workers move to another group", _s(move8)),
    ]


async def sights(lab_hosts: tuple[Host, ...], count: int) -> list[Row]:
    """Measure from an announcement to its being believed on another host."""
    here, there = lab_hosts[:2]
    ours = (here.python, "-m", "bench.ends.sight")
    async with (
        open_watched(there, (*ours, "browse")) as browser,
        open_watched(here, (*ours, "announce", str(count))) as announcer,
    ):
        await announcer.wait_line("done", within=120)
        await trio.sleep(0.5)
        said, seen = (
            _moments(announcer.lines_like("^at ")),
            _moments(browser.lines_like("^at ")),
        )
    spans = [1000 * (seen[name] - said[name]) for name in said if name in seen]
    what = f"announcement seen by a running master ({len(spans)} of {count})"
    return [Row(what, Measured(tuple(spans), "ms"), limit=5.0)]


async def shakes(lab_hosts: tuple[Host, ...], count: int) -> list[Row]:
    """Measure handshakes between two hosts."""
    here, there = lab_hosts[:2]
    ours = (here.python, "-m", "bench.ends.shake")
    async with open_watched(there, (*ours, "serve")) as server:
        await server.wait_line("^port")
        port = server.lines_like("^port")[0].split()[1]
        done = await here.run([*ours, "dial", there.ipv4, port, str(count)])
    spans = [1000 * span for span in json.loads(done.stdout)]
    return [
        Row("handshake, TCP between two hosts", Measured(tuple(spans), "ms"), limit=6.0)
    ]


async def idles(lab_hosts: tuple[Host, ...], seconds: float) -> list[Row]:
    """Watch a linked worker, and its master, that have nothing to do."""
    head, worker = lab_hosts[:2]
    argv = (*worker.aemesh, "worker", "--accept-first-master", "--cores", "1")
    async with join.open_master(head) as master, open_watched(worker, argv) as agent:
        await master.wait_line(f"serves {join.GROUP}")
        await trio.sleep(_SETTLED_AFTER)
        ours = await idle_costs(agent.pid, seconds=seconds)
        theirs = await idle_costs(master.pid, seconds=min(seconds, 20.0))
    return [
        *_family("idle agent", ours, limits=(50.0, 0.2)),
        *_family("idle master", theirs),
    ]


def _family(
    who: str, family: Family, *, limits: tuple[float, float] | None = None
) -> list[Row]:
    agent, memory, share = family.agent, None, None
    if limits is not None:
        memory, share = limits
    engine = family.engine
    return [
        Row(f"{who}: resident memory", Measured((agent.rss,), "MiB"), limit=memory),
        Row(f"{who}: its part of it (PSS)", Measured((agent.pss,), "MiB")),
        Row(f"{who}: of a core", Measured((agent.share,), "%"), limit=share),
        Row(f"{who}: its warden (PSS)", Measured((family.warden.pss,), "MiB")),
        Row(f"{who}: its warden, of a core", Measured((family.warden.share,), "%")),
        Row(
            f"{who}: its {len(engine)} Dask processes (PSS)",
            Measured((sum(e.pss for e in engine),), "MiB"),
        ),
        Row(
            f"{who}: its Dask processes, of a core",
            Measured((sum(e.share for e in engine),), "%"),
        ),
    ]


async def starts(lab_hosts: tuple[Host, ...], times: int) -> list[Row]:
    """Measure the start of a master, and the help."""
    head = lab_hosts[0]
    ready, open_ = [], []
    for _ in range(times):
        async with open_watched(
            head, (*head.aemesh, "master", "--group", join.GROUP)
        ) as master:
            ready.append(await master.wait_line("is master of") - master.started_at)
            open_.append(await master.wait_line("is ready") - master.started_at)
    helps = [await trio.to_thread.run_sync(_help) for _ in range(2 * times)]
    return [
        Row("master ready (its control socket serves)", _s(ready), limit=1.0),
        Row("its group ready (the scheduler is up)", _s(open_)),
        Row("`aemesh --help`, processor time", _s(helps), limit=0.15),
    ]


def _help() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {"PATH": os.environ["PATH"]}
    argv = [sys.executable, "-m", "aemesh", "--help"]
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class _Took:
    def __init__(self) -> None:
        self._joined: dict[str, list[join.Joined]] = {}

    def add(self, name: str, joined: join.Joined) -> None:
        self._joined.setdefault(name, []).append(joined)

    def first(self, name: str) -> Measured:
        return _s([one.first for one in self._joined[name]])

    def all(self, name: str) -> Measured:
        return _s([one.all for one in self._joined[name]])


def _s(values: list[float]) -> Measured:
    return Measured(tuple(values), "s")


def _moments(lines: list[str]) -> dict[str, float]:
    return {name: float(at) for _, name, at in (line.split() for line in lines)}


@dataclass(frozen=True, slots=True)
class Lot:
    """How much is measured: how often, and how long what does nothing is watched."""

    times: int
    idle: float  # seconds

    @property
    def few(self) -> int:
        """For what takes long, and what is compared with peers."""
        return max(3, min(5, self.times))


def in_office(
    part: Callable[[tuple[Host, ...], Lot], Awaitable[list[Row]]],
) -> Callable[[Lot], Awaitable[list[Row]]]:
    """Give a part a lab of its own."""

    async def run(lot: Lot) -> list[Row]:
        names = ["head", "other", *(f"office-{n + 1}" for n in range(_HOSTS))]
        async with open_lab(names) as lab:
            await trio.sleep(2)  # IPv6 has looked for twins
            return await part(lab.hosts, lot)

    return run


async def shares(lot: Lot) -> list[Row]:
    """Measure what needs no host."""
    return await trio.to_thread.run_sync(sharing, 2 * lot.times)


# By the names of ``--only``, in this order.
PARTS: dict[str, Callable[[Lot], Awaitable[list[Row]]]] = {
    "sharing": shares,
    "starts": in_office(lambda hosts, lot: starts(hosts, lot.times)),
    "sights": in_office(lambda hosts, _: sights(hosts, 40)),
    "shakes": in_office(lambda hosts, _: shakes(hosts, 60)),
    "joins": in_office(lambda hosts, lot: joins(hosts, lot.times)),
    "offices": in_office(lambda hosts, lot: offices(hosts, max(3, lot.times // 2))),
    "warm": in_office(lambda hosts, lot: warm_workers(hosts, max(3, lot.times // 2))),
    "forward": lambda lot: forwarding(lot.few),
    "rates": lambda lot: rates(2 * lot.few),  # the ratio is close to its budget
    "runs": lambda lot: runs(lot.few),
    "losses": lambda lot: losses(lot.few),
    "peers": lambda lot: peers(lot.few),
    "moves": lambda lot: moving(lot.few),
    "idle": in_office(lambda hosts, lot: idles(hosts, lot.idle)),
}


async def measure(lot: Lot, only: Sequence[str]) -> list[Row]:
    """Measure these parts, or all."""
    rows: list[Row] = []
    for name in only or PARTS:
        new = await PARTS[name](lot)
        print(as_text(new), end="\n\n", flush=True)
        rows += new
    return rows


def _load() -> str:
    return " ".join(f"{one:.2f}" for one in os.getloadavg())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def page(rows: list[Row], load: str) -> str:
    """Return the page with what was measured."""
    packages = ("aemesh", "trio", "zeroconf", "cryptography", "distributed")
    packages += ("ipyparallel", "ray")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return f"""# Benchmarks

Written by `make bench`; change nothing here by hand.
Everything ran in the lab: each host is a set of namespaces on one machine, so five "machines" share its cores.
Medians [least–most]; ours and the peer's took turns. 1 MiB is 1024 kB as `/proc` counts.

- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC
- command: `{shlex.join(["python", "-m", "bench.run", *sys.argv[1:]])}`
- machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}
- load average before: {load} and after: {_load()}
- versions: {versions}

{as_markdown(rows)}

A join is counted from the exec of `aemesh worker` to the master's line that the worker serves the group, which comes
after each of its Dask processes has registered. Of warm workers it is counted from the moment when a person's wish is
known to the master, or the first of them begins to leave the other group. Dask's own is counted from the exec of `dask worker`, with
certificates and the address typed by hand, to the scheduler's line for its last process.

A group of eight is counted from the exec of `aemesh master` where eight workers wait for one, and from the exec of a
script of each peer's own: `SSHCluster` and `ipyparallel.Cluster` over sshd on each host, where the user is known;
`ray start` on the head, and then on as many hosts at once as there are cores: all eight at once take longer than
the 30 s after which a node of Ray gives up. A move is counted from the first worker that leaves to the last
that serves, and with `SSHCluster` from `close` to the last worker of the next cluster, in one process. What is sent
directly and through the master goes over TLS of the standard library, and no host's line is slowed. The same Dask by
hand is `dask scheduler` and `dask worker --no-nanny --nthreads 1`; all that are compared are up at one time, take
turns, and are started anew ten times, since the same programs run some percent faster in one life than in another. A
worker with a task is lost while others wait; its task has begun again when a client hears so.

Items are mapped over two workers of one core each, and values of 1 kB are kept on the master's disk before they count;
what that adds to an item is all of it: asking, keeping, and reading it back. Alone means that nothing else is kept at the
same time, and is the way from the item through its agent to the disk and back.
"""


def main() -> None:
    """Measure, print, and write the page with ``--write``."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--times", type=int, default=7, metavar="N")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument(
        "--only", action="append", default=[], choices=PARTS, help="leave the rest out"
    )
    parser.add_argument(
        "--write",
        nargs="?",
        const=PAGE.name,
        metavar="PAGE",
        help=f"write {PAGE.name}, or for some of the parts another page beside it",
    )
    words = parser.parse_args()
    reexec_in_user_namespace()
    load = _load()
    started_at = time.monotonic()
    rows = trio.run(measure, Lot(words.times, words.idle), words.only)
    missed = [row.what for row in rows if row.verdict == "MISSED"]
    print(f"{time.monotonic() - started_at:.0f} s; missed: {missed or 'nothing'}")
    if words.write:
        PAGE.with_name(words.write).write_text(page(rows, load))


if __name__ == "__main__":
    main()
