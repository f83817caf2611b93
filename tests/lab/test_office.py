"""An office of a laptop and five machines, from the announcement to the result."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psutil

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, gone, open_office

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host, Listener

pytestmark = LAB

UP = ["office-1", "office-2", "office-3"]


async def test_the_analysis_runs_to_the_end_on_what_is_there(muons: Path, counts: str):
    """Shows: A2, A4, D1, E2, G1, L4; one comes late, and one leaves in between."""
    async with open_office(["laptop", *UP, "office-4", "office-5"]) as office:
        workers = {name: await office.worker(name) for name in [*UP, "office-4"]}
        master = await office.master("A")
        await office.joined(*workers)
        assert office.events is not None

        analysis = await office.analyse("A", muons)
        await office.worker("office-5")
        await analysis.wait_share(0.2)
        analysis.check_runs()
        code = await workers["office-2"].end(signal.SIGINT)
        analysis.check_runs()
        left = await office.events.wait("worker.left", worker="office-2")
        await office.joined("office-5")
        result = await analysis.wait()
        late = await office.view("office-5")
        parted = await office.view("office-2")
        sockets = {host.name: await host.listeners() for host in office.lab}
        for host in office.lab:
            if host.name != "office-2":
                check_sockets(host, sockets[host.name], dask=1)
        ended = await master.end(signal.SIGINT)

        assert code == 0, workers["office-2"].said
        assert "lost" not in left.text
        assert not office.events.find("worker.lost")
        assert result["counts_sha256"] == counts
        assert "office-5" in result["hosts"]
        assert set(result["hosts"]) <= {*UP, "office-4", "office-5"}
        assert (late["state"], late["group"]) == ("leased", "A")
        assert (parted["state"], parted["group"]) == ("left", None)
        assert sockets["office-2"] == []
        assert ended == 0
        await wait_for(gone(office.laptop), within=10, what="an empty laptop")


SCRIPT = """
import aemesh
with aemesh.connect("A") as group:
    print(sorted(member.name for member in group.workers))
    with group.client() as client:
        print(sum(client.gather(client.map(lambda number: number**2, range(100)))))
"""


async def test_a_command_and_a_python_script_have_the_whole_group():
    """Shows: E2, E6."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.master("A")
        await office.joined("office-1", "office-2")
        laptop = office.laptop
        line = "echo out; echo err >&2; [ $(hostname) = office-1 ] || exit 3"
        exec_ = [*laptop.aemesh, "exec", "--group", "A"]

        mixed = await laptop.run([*exec_, "--", "sh", "-c", line], check=False)
        good = await laptop.run([*exec_, "--", "hostname"])
        tasks = await laptop.run([laptop.python, "-c", SCRIPT])
        nobody = await laptop.run(
            [*laptop.aemesh, "exec", "--group", "B", "--", "true"], check=False
        )

        assert mixed.returncode == 3
        assert sorted(mixed.stdout.splitlines()) == ["office-1: out", "office-2: out"]
        assert {"office-1: err", "office-2: err", "office-2: exit code 3"} <= set(
            mixed.stderr.splitlines()
        )
        assert sorted(good.stdout.splitlines()) == [
            "office-1: office-1",
            "office-2: office-2",
        ]
        assert tasks.stdout.splitlines() == ["['office-1', 'office-2']", "328350"]
        assert nobody.returncode == 3
        assert "B" in nobody.stderr


def check_sockets(host: Host, sockets: list[Listener], *, dask: int) -> None:
    """Assert that a host listens with its agent, Dask and mDNS, and nothing else."""
    role = "master" if host.name == "laptop" else "worker"
    agents = {one.pid for one in sockets if is_agent(one.pid, role)}
    ours = [one for one in sockets if one.pid in agents]
    engine = [one for one in sockets if one.pid not in agents]

    assert {one.port for one in ours if one.protocol == "udp"} == {5353}
    tcp = [one for one in ours if one.protocol == "tcp"]
    assert {one.port for one in tcp} == {7472}, tcp  # the one documented port
    assert len(agents) == 1, sockets
    # A scheduler is reached over loopback as well: by clients, in any network.
    places = [host.ipv4] if role == "worker" else [host.ipv4, "127.0.0.1"]
    assert [(one.protocol, one.address) for one in engine] == [
        ("tcp", place) for place in places
    ] * dask, sockets


def is_agent(pid: int, role: str) -> bool:
    """Whether a process is `aemesh worker` or `aemesh master` itself."""
    words = psutil.Process(pid).cmdline()
    return "aemesh" in words and role in words
