"""Open MPI and MPICH, as Debian has them, over four hosts that have no ssh to use."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import ENDED_WITHIN, LAB, TIMES, Office, named, open_office

if TYPE_CHECKING:
    from aemesh.testing.lab import Host

pytestmark = [
    *LAB,
    pytest.mark.skipif(
        not (shutil.which("mpirun.openmpi") and shutil.which("mpirun.mpich")),
        reason="needs openmpi-bin and mpich",
    ),
]

NAMES = ["h1", "h2", "h3", "h4"]
KINDS = ["openmpi", "mpich"]
# All hosts are one machine, with its cores: nobody is to be bound to one, or to wait
# for another in a loop.  mpi4py takes the first library that it finds.
ENV: dict[str, dict[str, str]] = {
    "openmpi": {
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "MPI4PY_LIBMPI": "libmpi.so.40",
        # In a user namespace everybody is called root.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    },
    # Debian's launcher with the library of PyPI's wheel: Debian's own, over UCX, hangs
    # in MPI_Finalize now and then, on a single host as well.
    "mpich": {},
}
# The one that all are in: Open MPI takes it as it is, MPICH an interface of each host.
NETWORKS = {"openmpi": "net 10.77.0.0/24", "mpich": "net eth0"}
# Whoever is called by one of these names leaves a mark, and does nothing.
TRAPS = ("ssh", "rsh", "sshd", "rlogin", "srun", "qrsh", "llspawn", "lsrun")
CRASH = "from mpi4py import MPI; import os; MPI.COMM_WORLD.rank == 2 and os.abort();"
CRASH += "MPI.COMM_WORLD.barrier()"
FOREVER = "from mpi4py import MPI; import time; print('up', flush=True)\n"
FOREVER += "while True: MPI.COMM_WORLD.barrier(); time.sleep(0.1)"


class Cluster:
    """The group, and a way to run MPI programs on it."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.hosts = [office.host(name) for name in NAMES]
        self.idle: dict[str, int] = {}

    def words(self, kind: str, *words: str) -> list[str]:
        passed = ["-x", "MPI4PY_LIBMPI"] if kind == "openmpi" else []
        return ["mpirun", "--group", "A", "--mpi", f"mpirun.{kind}", *passed, *words]

    async def run(self, kind: str, *words: str, check: bool = True) -> Any:
        laptop = self.office.laptop
        return await laptop.run(
            [*laptop.aemesh, *self.words(kind, *words)],
            env=ENV[kind] | path_with_traps(laptop),
            cwd="/",
            check=check,
        )

    async def bench(self, kind: str, *words: str) -> str:
        python = self.office.laptop.python
        done = await self.run(kind, "-n", "4", python, "-m", "mpi4py.bench", *words)
        return str(done.stdout)

    async def start(self, kind: str, code: str, **options: Any):
        python = self.office.laptop.python
        words = self.words(kind, "-n", "4", python, "-c", code)
        env = ENV[kind] | path_with_traps(self.office.laptop)
        return await self.office.start("laptop", *words, env=env, cwd="/", **options)

    async def wait_idle(self, *hosts: Host) -> None:
        """Wait until nothing but the agents runs."""
        for host in hosts or (*self.hosts, self.office.laptop):
            await wait_for(
                lambda host=host: len(host.processes()) <= self.idle[host.name],
                within=ENDED_WITHIN,
                what=f"the end of all that MPI started on {host.name}",
            )


def path_with_traps(host: Host) -> dict[str, str]:
    return {"PATH": f"/tmp/traps:{host.environment()['PATH']}"}


async def lay_traps(host: Host) -> None:
    trap = "#!/bin/sh\\necho $0 $* >> /tmp/caught\\nexit 255\\n"
    script = "mkdir /tmp/traps && touch /tmp/caught && cd /tmp/traps &&"
    script += f" for n in {' '.join(TRAPS)}; do printf '{trap}' >$n; chmod +x $n; done"
    await host.run(["sh", "-c", script])


@asynccontextmanager
async def open_cluster():
    """Four members in an office where whoever calls ssh is caught."""
    async with open_office(["laptop", *NAMES]) as office:
        for host in office.lab:
            await lay_traps(host)
        for name in NAMES:
            await office.worker(name, env=path_with_traps(office.host(name)))
        master = ("master", "--group", "A", "--engine", "command", "--accept-new")
        agent = await office.start("laptop", *master)
        await agent.wait_said("is master of")
        office.events = await office.follow()
        await office.joined(*NAMES)
        cluster = Cluster(office)
        cluster.idle = {host.name: len(host.processes()) for host in office.lab}
        yield cluster
        for host in office.lab:
            caught = await host.run(["cat", "/tmp/caught"])
            assert caught.stdout == ""
            assert not named(host, "sshd")


async def test_mpi_runs_over_four_hosts_without_ssh():
    """Shows: E3."""
    async with open_cluster() as cluster:
        for kind in KINDS:
            await programs(cluster, kind)
            await a_rank_that_crashes(cluster, kind)
            await what_is_missing(cluster, kind)
        await a_host_that_is_cut_off(cluster, "openmpi", "h2")


@pytest.mark.long
async def test_what_mpi_started_ends_when_it_is_interrupted_or_cut_off():
    async with open_cluster() as cluster:
        for kind in KINDS:
            await ctrl_c(cluster, kind)
        await a_host_that_is_cut_off(cluster, "mpich", "h4")


async def programs(cluster: Cluster, kind: str) -> None:
    """mpi4py's own programs, unmodified."""
    began = time.monotonic()
    hello = await cluster.bench(kind, "helloworld")
    TIMES.append(f"{kind}: 4 ranks on 4 hosts, hello: {time.monotonic() - began:.2f} s")
    ring = await cluster.bench(kind, "ringtest")
    ping = await cluster.run(
        kind,
        *("-n", "2", "--map-by" if kind == "openmpi" else "-ppn"),
        *("node" if kind == "openmpi" else "1", cluster.office.laptop.python),
        *("-m", "mpi4py.bench", "pingpong", "-m", "1", "-n", "1", "-l", "500"),
    )

    subnet = "net $OMPI_MCA_btl_tcp_if_include$FI_TCP_IFACE"
    told = await cluster.run(kind, "-n", "1", "sh", "-c", f"echo {subnet}")

    assert told.stdout.strip() == NETWORKS[kind]
    ranks = re.findall(r"process (\d) of 4 on (h\d)", hello)
    assert sorted(ranks) == [(str(n), f"h{n + 1}") for n in range(4)]
    assert "4 processes" in ring
    latency = re.search(r"^ +1 .*\| (\S+) ±", ping.stdout, re.MULTILINE)
    assert latency is not None, ping.stdout
    TIMES.append(f"{kind}: mpi4py's pingpong of a byte: {latency[1]} s")


async def a_rank_that_crashes(cluster: Cluster, kind: str) -> None:
    python = cluster.office.laptop.python
    done = await cluster.run(kind, "-n", "4", python, "-c", CRASH, check=False)

    assert done.returncode not in {0, 6}, done.stderr
    assert re.search(r"signal 6|Aborted|EXIT CODE: 6", done.stdout + done.stderr)
    assert "aemesh: error" not in done.stderr
    await cluster.wait_idle()


async def what_is_missing(cluster: Cluster, kind: str) -> None:
    laptop = cluster.office.laptop
    prog = laptop.home / "prog"
    prog.write_text("#!/bin/sh\n")
    prog.chmod(0o755)

    done = await cluster.run(kind, "-n", "4", str(prog), check=False)

    assert done.returncode == 3
    assert f"{prog} is not on h1, h2, h3, h4" in done.stderr


async def ctrl_c(cluster: Cluster, kind: str) -> None:
    run = await cluster.start(kind, FOREVER, terminal=True)
    await run.wait_said("up", times=4, within=ENDED_WITHIN)
    (group,) = await cluster.office.ask("group", "list")
    assert group["held"] == 1
    assert run.terminal is not None
    await run.terminal.type("\x03")

    code = await run.wait()
    assert code not in {0, 6}, (code, run.said)
    await cluster.wait_idle()
    (group,) = await cluster.office.ask("group", "list")
    assert group["held"] == 0


async def a_host_that_is_cut_off(cluster: Cluster, kind: str, name: str) -> None:
    """Its launcher alone would wait for ever."""
    host = cluster.office.host(name)
    run = await cluster.start(kind, FOREVER)
    await run.wait_said("up", times=4, within=ENDED_WITHIN)
    began = time.monotonic()
    await host.cut()

    assert await run.wait() == 6
    took = time.monotonic() - began
    TIMES.append(f"{kind}: a host is cut off, mpirun has ended after {took:.1f} s")
    assert f"{host.name} went from group A in the midst of the run" in run.said
    assert f"{host.name} is lost" in run.said
    await cluster.wait_idle(*(one for one in cluster.hosts if one is not host))
    await host.mend()
    assert cluster.office.events is not None
    last = cluster.office.events.last
    await cluster.office.events.wait("worker.joined", worker=host.name, after=last - 1)
    await cluster.wait_idle()
