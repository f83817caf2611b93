"""The user's identity on real hosts: a job finds it, and nothing of it is left."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, open_office, state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = LAB

# A grid's certificate, where its tools look for it.
MAKE = (
    "umask 077; mkdir -p ~/.globus && cd ~/.globus && "
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /O=Grid/CN=Alice "
    "-addext basicConstraints=critical,CA:FALSE -keyout userkey.pem -out usercert.pem"
)
LOOK = "openssl x509 -in $X509_USER_PROXY -noout -subject; echo file $X509_USER_PROXY"

# Asks a Dask worker, once one is there that has the identity.
SCRIPT = """
import os, aemesh
with aemesh.connect() as group:
    with group.client() as client:
        client.wait_for_workers(1)
        print(client.submit(os.getenv, "X509_USER_PROXY").result())
"""


def proxies(run: Path) -> list[str]:
    """Return the files of identities; folders that go just now have none."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(run)
        for name in names
        if name == "proxy.pem"
    ]


async def test_a_command_acts_as_the_user_and_leaves_nothing():
    """Shows: T9. Threat: 79."""
    async with open_office(["laptop", "office-1"]) as office:
        laptop = office.laptop
        await laptop.run(["sh", "-c", MAKE])
        await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        words = ["exec", "--group", "A", "--delegate", "1h", "--", "sh", "-c", LOOK]
        done = await laptop.run([*laptop.aemesh, *words])
        run = state(office.host("office-1"), "worker") / "run"

        assert "Alice" in done.stdout
        assert "/tls/proxy.pem" in done.stdout
        await wait_for(
            lambda: not proxies(run),
            within=5.0,
            what="the end of the delegated file",
        )


async def test_a_script_has_it_and_a_killed_worker_leaves_nothing_at_its_next_start():
    """Shows: T9. Threat: 79."""
    async with open_office(["laptop", "office-1"]) as office:
        laptop = office.laptop
        await laptop.run(["sh", "-c", MAKE])
        worker = await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        await laptop.run([*laptop.aemesh, "group", "delegate", "A", "1h"])
        run = state(office.host("office-1"), "worker") / "run"
        await wait_for(
            lambda: proxies(run),
            within=15.0,
            what="the identity in the group's own node",
        )
        agent = worker.pid
        os.kill(worker.process.pid, signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)
        await worker.wait()
        assert proxies(run)
        assert office.events is not None
        await laptop.run([*laptop.aemesh, "group", "delegate", "A", "off"])
        mark = office.events.last
        await office.worker("office-1")
        await office.joined("office-1", after=mark)
        assert not proxies(run)


async def test_a_master_and_a_script_hand_it_on():
    """Shows: T9."""
    async with open_office(["laptop", "office-1"]) as office:
        laptop = office.laptop
        await laptop.run(["sh", "-c", MAKE])
        await office.worker("office-1")
        master = await office.master("A")
        await office.joined("office-1")
        assert office.events is not None
        run = state(office.host("office-1"), "worker") / "run"
        script = laptop.home / "script.py"
        script.write_text(SCRIPT)
        words = ["run", "--group", "A", "--delegate", "1h", str(script)]
        done = await laptop.run([*laptop.aemesh, *words])
        assert "/tls/proxy.pem" in done.stdout
        await wait_for(lambda: not proxies(run), within=15.0, what="its end")
        await master.end()

        again = await office.start("laptop", "master", "--delegate", "1h")
        await again.wait_said("jobs act as .*Alice")
        await wait_for(lambda: proxies(run), within=30.0, what="the identity")


async def test_the_credentials_of_a_group_open_its_engine_for_tools_of_the_user():
    """Shows: T9: what the command prints is all that a tool needs."""
    tool = (
        "from distributed import Client\n"
        "with Client() as client:\n"
        "    print(client.submit(sum, [1, 2, 3]).result())\n"
    )
    async with open_office(["laptop", "office-1"]) as office:
        laptop = office.laptop
        await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        words = ["group", "credentials", "A", "--out", "mine", "--for", "1h"]
        made = await laptop.run([*laptop.aemesh, *words])
        script = f"{made.stdout}\nexec {laptop.python} -c '{tool}'"
        done = await laptop.run(["sh", "-c", script])
        again = await laptop.run([*laptop.aemesh, *words], check=False)
        modes = [p.stat().st_mode & 0o777 for p in (laptop.home / "mine").iterdir()]

    assert done.stdout.split() == ["6"]
    assert "has credentials already" in again.stderr
    assert again.returncode == 3
    assert set(modes) <= {0o600, 0o644}
