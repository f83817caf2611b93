"""An engine of a third party on real hosts, with a client that knows nothing of us."""

from __future__ import annotations

import json

import pytest

from tests.lab.office import LAB, open_office

pytest.importorskip("ipyparallel")
pytestmark = LAB

PACKAGE = "examples/ipyparallel-engine"
SCRIPT = """
import json, socket, sys
import ipyparallel

def square(number):
    import socket, time
    time.sleep(0.01)
    return number * number, socket.gethostname()

with ipyparallel.Client() as client:
    client.wait_for_engines(2, timeout=40)
    found = client.load_balanced_view().map_sync(square, range(40))
    hosts = sorted({host for _, host in found})
    json.dump([sum(one for one, _ in found), hosts], sys.stdout)
"""


async def test_a_client_of_ipyparallel_computes_on_two_hosts() -> None:
    """Shows: E1; the package is beside aemesh on the laptop, and nowhere else."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        laptop = office.laptop
        # As pip installs it: what it offers stands beside its code.
        about = laptop.home / "site/aemesh_ipyparallel-1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Name: aemesh-ipyparallel\nVersion: 1\n")
        (about / "entry_points.txt").write_text(
            "[aemesh.engines]\nipyparallel = aemesh_ipyparallel:ENGINE\n"
        )
        checkout = laptop.environment()["PYTHONPATH"]
        path = f"{checkout}:{checkout}/{PACKAGE}:{about.parent}"
        words = ("--group", "A", "--engine", "ipyparallel", "--accept-new")
        env = {"PYTHONPATH": path}
        master = await office.start("laptop", "master", *words, env=env)
        await master.wait_said("is master of", within=40)
        office.events = await office.follow()
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.joined("office-1", "office-2")
        script = laptop.home / "script.py"
        script.write_text(SCRIPT)

        done = await laptop.run([*laptop.aemesh, "run", "--group", "A", str(script)])

        total, hosts = json.loads(done.stdout)
        assert total == sum(number * number for number in range(40))
        assert hosts == ["office-1", "office-2"]
