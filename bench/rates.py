"""Tasks and bytes in a second: Dask on aemesh, and the same Dask started by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from aemesh.testing.lab import Host, open_lab
from bench import join
from bench.table import Measured, Row
from bench.watched import open_watched

_SCRIPT = "/mnt/aemesh/checkout/bench/ends/rates.py"
_TASKS, _BYTES = 1000, 128 << 20
# Not slower than 0.97 of the peer's rate; the rows have times, not rates.
_BUDGET = 1 / 0.97
_WITHIN = 120.0


async def rates(times: int, turns: int = 2) -> list[Row]:
    """Measure each in turn; all three are up meanwhile, and idle but for one.

    Each time they are started anew: of the same programs some run by some percent
    faster than others as long as they live, and that is no merit of theirs.
    """
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(times):
        async with (
            open_lab(["head", "one", "two"]) as lab,
            open_each(lab.hosts[0], lab.hosts[1:]) as each,
        ):
            order = list(each)
            for _ in range(turns):
                order.reverse()
                for name in order:
                    done = await lab.hosts[0].run(
                        each[name].argv, env=each[name].env, within=_WITHIN
                    )
                    for what, seconds in json.loads(done.stdout).items():
                        took.setdefault((what, name), []).append(seconds)
    told = {"tasks": "1000 empty tasks", "bytes": "a GiB from worker to worker"}
    return [
        Row(
            f"Dask: {told[what]}",
            Measured(tuple(took[what, "ours"]), "s"),
            Measured(tuple(took[what, peer]), "s"),
            f"by hand, {peer}",
            limit,
        )
        for what in told
        for peer, limit in (("with TLS", _BUDGET), ("without TLS", None))
    ]


@dataclass(frozen=True, slots=True)
class Script:
    """How the script that measures is started."""

    argv: Sequence[str]
    env: Mapping[str, str]


@asynccontextmanager
async def open_each(
    head: Host, hosts: Sequence[Host]
) -> AsyncIterator[Mapping[str, Script]]:
    """Run a group of ours, and the same Dask by hand, with TLS and without."""
    await trio.sleep(2)  # IPv6 has looked for twins
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(join.open_master(head))
        for host in hosts:
            words = ("worker", "--accept-first-master", "--cores", "1")
            await stack.enter_async_context(open_watched(host, (*host.aemesh, *words)))
            await ours.wait_line(f"{host.name} serves {join.GROUP}")
        peers: dict[str, join.DaskTls | None] = {
            "with TLS": join.DaskTls(),
            "without TLS": None,
        }
        script = [_SCRIPT, str(_TASKS), str(_BYTES)]
        run = [*head.aemesh, "run", "--group", join.GROUP]
        each = {"ours": Script([*run, *script], {})}
        for name, tls in peers.items():
            env = await stack.enter_async_context(by_hand(head, hosts, tls))
            each[name] = Script([head.python, *script], env)
        yield each


@asynccontextmanager
async def by_hand(
    head: Host, hosts: Sequence[Host], tls: join.DaskTls | None = None
) -> AsyncIterator[Mapping[str, str]]:
    """Run a scheduler and workers as a person would; give what a client needs."""
    scheme, port = ("tls", "8786") if tls else ("tcp", "8790")
    address = f"{scheme}://{head.ipv4}:{port}"
    dask = ("-m", "dask")
    async with AsyncExitStack() as stack:
        argv = (head.python, *dask, "scheduler", "--protocol", scheme, "--no-dashboard")
        argv += ("--host", head.ipv4, "--port", port, "--dashboard-address", ":0")
        words = tls.words(head) if tls else []
        scheduler = await stack.enter_async_context(open_watched(head, (*argv, *words)))
        await scheduler.wait_line(r"Scheduler at:.*://")
        for host in hosts:
            argv = (host.python, *dask, "worker", address, "--no-dashboard")
            argv += ("--no-nanny", "--nthreads", "1", "--protocol", scheme)
            argv += ("--host", host.ipv4)
            more = tls.words(host) if tls else []
            await stack.enter_async_context(open_watched(host, (*argv, *more)))
        await scheduler.wait_line(r"Register worker addr", times=len(hosts))
        yield client_env(address, words)


def client_env(address: str, words: list[str]) -> dict[str, str]:
    """Return the variables by which a client finds its scheduler."""
    env = {"DASK_SCHEDULER_ADDRESS": address}
    if words:
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        files = dict(zip(words[::2], words[1::2], strict=True))
        env |= {
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
            f"{tls}CA_FILE": files["--tls-ca-file"],
            f"{tls}CLIENT__CERT": files["--tls-cert"],
            f"{tls}CLIENT__KEY": files["--tls-key"],
        }
    return env
