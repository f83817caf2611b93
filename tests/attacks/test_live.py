"""Attacks on real hosts: what a job may see, and what ends when its master is gone."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from aemesh import limits
from aemesh.testing.lab import LabError, wait_for
from tests.lab.office import LAB, TIMES, Agent, named, open_office, state

if TYPE_CHECKING:
    from collections.abc import Collection

    from aemesh.testing.lab import Host

pytestmark = LAB

# On top of what is promised: a look at all processes, on a machine that is busy.
BUSY_AFTER = 1.5
# As long as a worker waits for a master if no engine runs there.
KEPT = "3s"

EXEC = ("exec", "--group", "A", "--")
PARTS = ["pid", "ppid", "cmdline", "status"]

# Tells what a job finds, and whether it can become more than it is.
SPY = """
import json, os
open_fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        open_fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass  # that of the listing itself
became = []
for name in ("setuid", "seteuid", "setgid", "setegid"):
    try:
        getattr(os, name)(0)
        became.append(name)
    except OSError:
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "fds": open_fds,
    "environ": open("/proc/self/environ").read(),
    "became": became,
    "uids": sorted({int(n) for n in (status["Uid"] + status["Gid"]).split()}),
    "groups": os.getgroups(),
    "capabilities": int(status["CapEff"], 16),
}))
"""

# A job that tries to outlive its master: its leader takes SIGTERM for nothing, and so
# do two daemons in sessions of their own, one of which has no environment any more.
HYDRA = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
SLEEP = [sys.executable, "-S", "-c", "import signal\\nwhile True: signal.pause()"]
reading, writing = os.pipe()
for env in (dict(os.environ), {}):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, f"{os.getpid()} ".encode())
            os.execve(SLEEP[0], SLEEP, env)
        os._exit(0)
    os.wait()
daemons = b""
while daemons.count(b" ") < 2:
    daemons += os.read(reading, 100)
print("heads", os.getpid(), daemons.decode().strip(), "grown", flush=True)
while True:
    signal.pause()
"""

# What a job is told of itself: who it is, and where it may ask, keep and import.
TOLD = {
    *("AEMESH_JOB", "AEMESH_TREE", "AEMESH_JOB_SOCKET"),
    *("AEMESH_CHECKPOINT", "AEMESH_PRELOAD"),
}

# Uses the key of the worker on its host to be somebody at another worker's port.
THIEF = """
import sys
from pathlib import Path
import trio
from aemesh.errors import AemeshError
from aemesh.host.keys.keystore import load_or_make
from aemesh.model.address import Address
from aemesh.model.names import NodeName
from aemesh.model.trust import Decision, Mode, Reason, Role, Verdict
from aemesh.net.shake import shakers
from aemesh.net.tcp import TcpNetwork
from aemesh.protocol.hello import Ourselves
from aemesh.testing.nodes import FixedProofs

class Yes:
    proofs = FixedProofs()
    def admits(self, key_id, chain): return None
    def judge(self, peer, *, purpose, skew, expected):
        return Verdict(Decision.OK, Reason.KNOWN)
    def heard(self, peer, verdict): print("heard", verdict.reason.value, flush=True)
    def commit(self, peer, verdict): pass

async def main():
    role, name, host, port, folder = sys.argv[1:]
    identity = load_or_make(Path(folder), name)
    ours = Ourselves(role=Role(role), name=NodeName(name), key_id=identity.key_id,
                     mode=Mode.LEAP)
    connection = await TcpNetwork().dial(Address(host, int(port)))
    try:
        await shakers(ours, identity)(Yes()).connect(connection, expected=None)
    except AemeshError as error:
        print("refused", error)
    else:
        print("let in")

trio.run(main)
"""


async def test_a_job_sees_no_key_no_secret_and_nothing_open_of_the_agent():
    """Threat: 84."""
    secrets = {"AEMESH_SECRET": "hush-1", "TOKEN": "hush-2", "SSH_AUTH_SOCK": "/hush"}
    async with open_office(["laptop", "office-1"]) as office:
        # Where its folder is a job knows; what it may not do is go on from there.
        place = {"AEMESH_STATE": str(state(office.host("office-1")))}
        worker = await office.start(
            *("office-1", "worker", "--cores", "1", "--accept-first-master"),
            env=secrets | place,
        )
        await office.master("A")
        await office.joined("office-1")
        host = office.host("office-1")
        spied = await office.laptop.run(
            [*office.laptop.aemesh, *EXEC, "python", "-c", SPY], check=False
        )
        assert spied.returncode == 0, spied.stderr
        seen = json.loads(spied.stdout.removeprefix("office-1: "))
        agent = psutil.Process(worker.pid)
        agents = open_files(agent.pid)
        environ = environment(agent.pid)
        jobs = [
            (open_files(job.pid), environment(job.pid), " ".join(job.cmdline()))
            for job in agent.children(recursive=True)
        ]
        keys = key_texts(state(host, "worker") / "id_ed25519")

    # The attack would have had something to find.
    hidden = [*secrets.values(), f"AEMESH_STATE={place['AEMESH_STATE']}"]
    assert all(secret in environ for secret in hidden)
    assert any(target.startswith("socket:") for target in agents)
    assert jobs

    assert set(seen["fds"]) == {"0", "1", "2"}, seen["fds"]
    assert all(target.startswith("pipe:") for target in seen["fds"].values())
    check_environment(seen["environ"], hidden, keys)
    assert seen["became"] == []
    assert seen["capabilities"] == 0
    assert seen["uids"] == [host.uid]
    assert 0 not in seen["groups"]
    # And those of the engine, which has been there since the agent's start.
    for files, theirs, words in jobs:
        check_environment(theirs, hidden, keys)
        assert not any(key in words for key in keys)
        # Of pipes each has an end; what is anonymous only has the name in common.
        passed = ("pipe:", "anon_inode:")
        shared = {name for name in files & agents if not name.startswith(passed)}
        assert shared <= {"/dev/null"}, shared
        assert not any("id_ed25519" in name or "identity" in name for name in files)


async def test_a_job_ends_when_the_network_to_its_master_is_cut():
    """Threat: 90."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        worker = await office.worker("office-1")
        await office.worker("office-2")
        # What took all marks off ends with the engine, when the lease does.
        await office.master("A", kept=KEPT)
        await office.joined("office-1", "office-2")
        assert office.events is not None
        job = await office.start("laptop", *EXEC, "python", "-c", HYDRA)
        heads = {name: await grown(job, name) for name in ("office-1", "office-2")}
        host = office.host("office-1")

        began = time.monotonic()
        mark = office.events.last
        await host.cut()
        took = await ended(heads["office-1"], since=began)
        told = await office.events.wait("worker.lost", worker="office-1", after=mark)
        await worker.wait_said("left group A")
        alone = {one.pid for one in await host.listeners()}
        TIMES.append(f"a job without a network ended after {took:.3f} s")
        others = running(heads["office-2"])
        await host.mend()
        await office.joined("office-1", after=told.number)

        # It is lost after silence, its job has a grace time, and then a term.
        assert took > limits.ORPHANED_JOB_AFTER
        by = limits.LOST_AFTER + limits.ORPHANED_JOB_AFTER + limits.TERM_AFTER
        assert took < by + BUSY_AFTER
        assert others == heads["office-2"]  # whose network is well
        assert alone == {worker.pid}  # nor does an engine listen any more
        assert strangers(host) == set()


async def test_a_job_ends_when_its_master_is_killed():
    """Threat: 90."""
    async with open_office(["laptop", "office-1"]) as office:
        worker = await office.worker("office-1")
        master = await office.master("A", kept=KEPT)
        await office.joined("office-1")
        job = await office.start("laptop", *EXEC, "python", "-c", HYDRA)
        heads = await grown(job, "office-1")
        host = office.host("office-1")

        began = time.monotonic()
        office.laptop.kill(master.pid)
        took = await ended(heads, since=began)
        TIMES.append(f"a job without a master ended after {took:.3f} s")
        await worker.wait_said("left group A")
        alone = {one.pid for one in await host.listeners()}
        code = await job.wait()
        await master.wait()
        await wait_for(
            lambda: not named(office.laptop, "dask_head.py"),
            within=10,
            what="an end of the scheduler, which its keeper keeps no longer",
        )
        await office.master("A")
        await office.joined("office-1")

        # The kernel told of this end: a job lives no longer than its stream.
        assert took > limits.TERM_AFTER
        assert took < limits.ORPHANED_JOB_AFTER + 2 * limits.TERM_AFTER + BUSY_AFTER
        assert code != 0, job.said
        assert "Traceback" not in job.said
        assert worker.process.returncode is None
        assert alone == {worker.pid}
        assert strangers(host) == set()


async def test_a_worker_cannot_command_another_worker():
    """Threat: 80."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        await office.worker("office-1")
        victim = await office.worker("office-2")
        await office.master("A")
        await office.joined("office-1", "office-2")
        here, there = office.host("office-1"), office.host("office-2")
        known = (state(there, "worker") / "known_masters").read_text()

        as_worker = await steal(here, there, role="worker", name="office-1")
        await victim.wait_said("a worker talks to a master, the peer is a worker")
        as_master = await steal(here, there, role="master", name="office-1")
        as_laptop = await steal(here, there, role="master", name="laptop")
        rows = await office.ask("trust", "list", name="office-2")
        (mine,) = await office.ask("key", "show", name="office-1")
        done = await office.laptop.run([*office.laptop.aemesh, *EXEC, "hostname"])

        assert as_worker.startswith("refused")
        assert "heard" not in as_worker  # not even judged
        assert "heard owned" in as_master
        assert "let in" not in as_master
        assert "heard key-changed" in as_laptop
        assert "let in" not in as_laptop
        assert (state(there, "worker") / "known_masters").read_text() == known
        # Its owner can see who tried.
        assert [r["name"] for r in rows if r["key"] == mine["key"]] == ["office-1"]
        assert [r["name"] for r in rows if r["state"] == "known"] == ["laptop"]
        assert sorted(done.stdout.split()) == sorted(
            ["office-1:", "office-1", "office-2:", "office-2"]
        )


def open_files(pid: int) -> set[str]:
    """Return what a process has open, as the kernel names it."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(entry))
        except OSError:
            continue  # closed meanwhile
    return found


def environment(pid: int) -> str:
    """Return what a process was started with."""
    return Path(f"/proc/{pid}/environ").read_text()


def key_texts(path: Path) -> list[str]:
    """Return the forms in which the private key could be told."""
    pem = path.read_text()
    body = "".join(line for line in pem.splitlines() if not line.startswith("-"))
    seed = base64.b64decode(body)[-32:]
    return ["PRIVATE KEY", body, base64.b64encode(seed).decode(), seed.hex()]


def check_environment(
    environ: str, secrets: Collection[str], keys: Collection[str]
) -> None:
    """Assert that an environment tells nothing of the agent's."""
    assert not [text for text in (*secrets, *keys) if text in environ]
    names = {pair.partition("=")[0] for pair in environ.split("\0") if pair}
    ours = {name for name in names if name.startswith("AEMESH_")}
    assert ours <= TOLD


async def grown(job: Agent, name: str) -> set[int]:
    """Return the processes of a hydra on a host, once it has told them."""
    said = await job.wait_said(rf"{name}: heads (\d+) (\d+) (\d+) grown")
    heads = {int(pid) for pid in said.groups()}
    assert running(heads) == heads
    return heads


def running(pids: Collection[int]) -> set[int]:
    """Return which of the processes live."""
    alive = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.add(pid)
        except psutil.NoSuchProcess:
            continue
    return alive


async def ended(heads: set[int], *, since: float) -> float:
    """Wait until no head of a hydra is left; return how long that took."""
    try:
        await wait_for(lambda: not running(heads), within=20, what="the end of a job")
    except LabError as error:
        left = [psutil.Process(pid).as_dict(PARTS) for pid in running(heads)]
        raise AssertionError(left) from error
    return time.monotonic() - since


def strangers(host: Host) -> set[int]:
    """Return the processes on a host that belong neither to aemesh nor to Dask."""
    found = set()
    for pid in host.processes():
        try:
            words = " ".join(psutil.Process(pid).cmdline())
        except psutil.NoSuchProcess:
            continue
        if not any(known in words for known in ("-m aemesh", "dask_node.py")):
            found.add(pid)
    return found


async def steal(here: Host, there: Host, *, role: str, name: str) -> str:
    """Run the thief on a host against the worker on another; return what it says."""
    (port,) = {
        one.port
        for one in await there.listeners()
        if one.protocol == "tcp" and one.address != there.ipv4
    }
    folder = str(state(here, "worker"))
    argv = [here.python, "-c", THIEF, role, name, there.ipv4, str(port), folder]
    return (await here.run(argv)).stdout
