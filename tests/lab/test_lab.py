"""The lab keeps its promises: hosts are real, faults are felt, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from aemesh.testing import lab_namespaces, lab_sweep
from aemesh.testing.lab import Host, LabError, open_lab, wait_for
from aemesh.testing.lab_avahi import open_avahi
from aemesh.testing.lab_namespaces import CHECKOUT
from aemesh.testing.lab_needs import can_build

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not can_build(), reason="run beneath `python -m aemesh.testing.lab --`"
    ),
]

PORT = 4711

# Answers every connection, and keeps it.
SERVER = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=1)
kept = []
while True:
    kept.append(server.accept()[0])
    kept[-1].sendall(b"hello")
"""

# Says hello, and then how the connection ended.
CLIENT = f"""
import socket, sys
peer = socket.create_connection((sys.argv[1], {PORT}), timeout=float(sys.argv[2]))
print(peer.recv(5).decode(), flush=True)
try:
    print("ended" if peer.recv(1) == b"" else "more")
except TimeoutError:
    print("silence")
except ConnectionError:
    print("reset")
"""

WORKER = f"""
import socket
from zeroconf import ServiceInfo, Zeroconf
kind = "_aemesh-worker._tcp.local."
Zeroconf().register_service(
    ServiceInfo(
        kind, "w1." + kind, port={PORT}, server="office-1.local.",
        addresses=[socket.inet_aton(socket.gethostbyname("office-1"))],
    ),
    cooperating_responders=True,
)
print("up", flush=True)
input()
"""

ECHO = f"""
import socket
echo = socket.socket(type=socket.SOCK_DGRAM)
echo.bind(("", {PORT}))
print("up", flush=True)
while True:
    echo.sendto(*echo.recvfrom(9))
"""

# In bursts of 40, which fit into any buffer; the last ones may take their time.
COUNT = f"""
import socket
one = socket.socket(type=socket.SOCK_DGRAM)
one.connect(("office-1", {PORT}))
came = 0
for burst in range(10):
    for _ in range(40):
        one.send(b"x")
    one.settimeout(0.5 if burst == 9 else 0.05)
    try:
        while came < 400:
            came += len(one.recv(9))
    except TimeoutError:
        pass
print(came)
"""

# A lab in a process of its own, with a program that hides in another network.
OWNER = """
import trio
from aemesh.testing.lab import open_lab, wait_for

async def main():
    async with open_lab(["one", "two"]) as lab:
        await lab.host("one").start(["sleep", "600"])
        await lab.host("two").start(["unshare", "-Urn", "sleep", "600"])
        print(lab.name, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def reaches(host: Host, address: str) -> bool:
    """Whether one ping of a few gets there and back."""
    ping = ["ping", "-c3", "-i0.02", "-W0.3", "-q", address]
    return (await host.run(ping, check=False)).returncode == 0


async def greet(host: Host, name: str, *, patience: float = 5.0) -> str:
    """Return what a TCP client on the host tells of the server on another."""
    argv = [host.python, "-c", CLIENT, name, str(patience)]
    done = await host.run(argv, check=False)
    return done.stdout + done.stderr


async def serve(host: Host) -> trio.Process:
    """Start the TCP server, and wait until it listens."""
    server = await host.start([host.python, "-c", SERVER])

    async def listens() -> bool:
        return any(one.port == PORT for one in await host.listeners())

    await wait_for(listens, within=10, what=f"a server on {host.name}")
    return server


def traces(name: str) -> list[str]:
    """Return all that is left of a lab on this machine."""
    return [
        str(path)
        for place in (lab_sweep.NETNS, lab_sweep.FOLDERS)
        for path in place.glob(f"{name}*")
    ] + [f"process {pid}" for pid in lab_sweep.members((), f"{name}-")]


async def start_owner() -> tuple[trio.Process, str]:
    """Start a process that owns a lab; return it and the lab's name."""
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=CHECKOUT,
    )
    assert owner.stdout is not None
    name = (await owner.stdout.receive_some()).decode().strip()
    assert len(traces(name)) > 4
    return owner, name


# --- hosts --------------------------------------------------------------------------


async def test_hosts_reach_each_other_by_name_and_both_kinds_of_address():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab

        for address in (office.ipv4, office.ipv6, "office-1"):
            assert await reaches(laptop, address), address
        link_local = await office.run(["ip", "-6", "-o", "addr", "show", "eth0"])
        (address,) = (w for w in link_local.stdout.split() if w.startswith("fe80:"))
        assert await reaches(laptop, address.split("/")[0] + "%eth0")


async def test_a_host_has_its_own_name_and_its_own_places_for_files():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        leave = "hostname; cat /etc/hostname; touch /tmp/a /dev/shm/b /var/tmp/c"
        look = "ls /tmp /dev/shm /var/tmp | grep -cx '[abc]'"

        assert (await laptop.run(["sh", "-c", leave])).stdout.split() == ["laptop"] * 2
        assert (await laptop.run(["sh", "-c", look])).stdout == "3\n"
        assert (await office.run(["sh", "-c", look], check=False)).stdout == "0\n"
        assert "b" not in os.listdir("/dev/shm")


async def test_a_program_runs_as_an_ordinary_user_in_a_home_of_its_own():
    ask = (
        "import os, pwd; print(os.getuid(), pwd.getpwuid(os.getuid()).pw_name);"
        "print(os.path.expanduser('~')); open('note', 'w').write('mine')"
    )

    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        said = (await laptop.run([laptop.python, "-c", ask])).stdout.split()
        seen = await office.run(["ls", str(laptop.home)], check=False)

        assert said == [str(laptop.uid), "user", str(laptop.home)]
        assert laptop.uid != 0
        assert (laptop.home / "note").read_text() == "mine"
        assert seen.returncode != 0


async def test_a_tool_may_run_as_root():
    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")

        assert (await host.run(["id", "-u"], root=True)).stdout == "0\n"


async def test_a_host_imports_aemesh_from_a_checkout_it_cannot_change():
    ask = (
        "import aemesh, os, trio; print(aemesh.__file__);"
        "print(os.statvfs(aemesh.__file__).f_flag & os.ST_RDONLY)"
    )

    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")
        said = (await host.run([host.python, "-c", ask])).stdout.split()

        assert said == ["/mnt/aemesh/checkout/aemesh/__init__.py", str(os.ST_RDONLY)]


async def test_the_pid_of_a_started_program_is_its_own():
    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")
        argv = [host.python, "-c", "import os; print(os.getpid(), flush=True); input()"]
        process = await host.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None

        said = int(await process.stdout.receive_some())
        assert said == process.pid
        assert host.processes() == {process.pid}
        host.kill(process.pid)
        assert await process.wait() == -signal.SIGKILL
        with pytest.raises(LabError, match="no process"):
            host.kill(process.pid)


async def test_a_program_that_fails_or_hangs_is_told_by_name():
    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")

        with pytest.raises(LabError, match=r"`ls /nowhere` on laptop ended with 2"):
            await host.run(["ls", "/nowhere"])
        with pytest.raises(LabError, match=r"on laptop took longer than 0.1 s"):
            await host.run(["sleep", "600"], within=0.1)
        assert host.processes() == set()


async def test_a_process_block_ends_its_program():
    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")
        async with host.open_process(["sleep", "600"]) as process:
            assert host.processes() == {process.pid}

        assert process.returncode == -signal.SIGKILL
        assert host.processes() == set()


async def test_listeners_are_told_with_their_program():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        server = await serve(office)

        (one,) = await office.listeners()
        assert (one.protocol, one.port, one.pid) == ("tcp", PORT, server.pid)
        assert one.program.startswith("python")
        assert await laptop.listeners() == []


# --- faults -------------------------------------------------------------------------


async def test_a_cut_host_is_alone_until_it_is_mended():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab

        await office.cut()
        assert not await reaches(laptop, office.ipv4)
        assert "NO-CARRIER" in (await office.run(["ip", "link", "show", "eth0"])).stdout
        await office.mend()
        await wait_for(
            lambda: reaches(laptop, office.ipv4), within=5, what="a way to the office"
        )


async def test_loss_takes_its_share_both_ways():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        argv = [office.python, "-c", ECHO]
        async with office.open_process(argv, stdout=subprocess.PIPE) as echo:
            assert echo.stdout is not None
            assert await echo.stdout.receive_some() == b"up\n"

            assert await count_echoes(laptop) == 400
            await office.loss(30)
            # 0.7 x 0.7 = 49 %: 196 of 400, and five standard deviations are 50.
            assert 146 <= await count_echoes(laptop) <= 246
            await office.loss(0)
            assert await count_echoes(laptop) == 400


async def count_echoes(host: Host) -> int:
    """Return how many of 400 datagrams came back."""
    return int((await host.run([host.python, "-c", COUNT])).stdout)


async def test_a_program_is_not_told_that_its_datagrams_are_lost():
    send = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM);"
        "[s.sendto(b'x', ('office-1', 9)) for _ in range(100)]"
    )

    async with open_lab(["laptop", "office-1"]) as lab:
        laptop = lab.host("laptop")
        await laptop.loss(100)

        await laptop.run([laptop.python, "-c", send])


@pytest.mark.parametrize("loss", [0, 20])
async def test_a_slow_wire_makes_each_way_longer(loss: int):
    async with open_lab(["laptop", "office-1", "office-2"]) as lab:
        laptop, office, other = lab
        await office.delay(0.03)
        await office.loss(loss)

        slow = await shortest_trip(laptop, office)
        fast = await shortest_trip(laptop, other)
        await office.delay(0.05)
        slower = await shortest_trip(laptop, office)
        await office.delay(0)
        again = await shortest_trip(laptop, office)

        assert slow >= 0.06
        assert slower >= 0.1
        assert fast < 0.03
        assert again < 0.03


async def shortest_trip(here: Host, there: Host) -> float:
    """Return the shortest of some round trips, in seconds."""
    done = await here.run(["ping", "-c20", "-i0.02", "-W0.3", "-q", there.ipv4])
    return float(done.stdout.split(" = ")[1].split("/")[0]) / 1000


async def test_much_data_goes_whole_through_a_slow_wire():
    send = (
        "import hashlib, os, socket; data = os.urandom(20_000_000);"
        f"s = socket.create_connection(('office-1', {PORT}));"
        "s.sendall(data); s.shutdown(1); got = s.recv(100);"
        "assert got == hashlib.sha256(data).digest(), got"
    )
    receive = (
        "import hashlib, socket;"
        f"s = socket.create_server(('', {PORT})); print('up', flush=True);"
        "c, _ = s.accept(); h = hashlib.sha256();"
        "[h.update(d) for d in iter(lambda: c.recv(1 << 16), b'')]; c.send(h.digest())"
    )

    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        await office.delay(0.002, jitter=0.001)
        argv = [office.python, "-c", receive]
        async with office.open_process(argv, stdout=subprocess.PIPE) as receiver:
            assert receiver.stdout is not None
            assert await receiver.stdout.receive_some() == b"up\n"

            await laptop.run([laptop.python, "-c", send], within=20)


async def test_a_slow_wire_can_be_cut_and_mended():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        await office.delay(0.01)

        await office.cut()
        assert not await reaches(laptop, office.ipv4)
        await office.mend()
        await wait_for(
            lambda: reaches(laptop, office.ipv4), within=5, what="a way to the office"
        )


async def test_a_firewall_refuses_strangers_but_lets_answers_in():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        await serve(laptop)
        await serve(office)

        await office.firewall()
        assert "ConnectionRefusedError" in await greet(laptop, "office-1")
        assert "hello" in await greet(office, "laptop", patience=0.2)
        assert "hello" in await greet(office, "localhost", patience=0.2)
        await office.firewall(allow_ports=[PORT])
        assert "hello" in await greet(laptop, "office-1", patience=0.2)
        await office.firewall(silent=True)
        assert "TimeoutError" in await greet(laptop, "office-1", patience=0.3)
        await office.firewall_off()
        assert "hello" in await greet(laptop, "office-1", patience=0.2)


async def test_a_partition_splits_hosts_until_it_heals():
    async with open_lab(["a1", "a2", "b1"]) as lab:
        a1, a2, b1 = lab

        await lab.partition([a1, a2], [b1])
        assert await reaches(a1, "a2")
        assert not await reaches(a1, "b1")
        assert not await reaches(b1, "a2")
        await lab.heal()
        await wait_for(lambda: reaches(a1, "b1"), within=5, what="a way to b1")


async def test_peers_hear_of_a_killed_program_but_not_of_a_crashed_host():
    async with open_lab(["laptop", "office-1", "office-2"]) as lab:
        laptop, killed, crashed = lab
        ends: dict[str, str] = {}

        async def watch(host: Host) -> None:
            ends[host.name] = await greet(laptop, host.name, patience=1.0)

        for host in (killed, crashed):
            await serve(host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, killed)
            nursery.start_soon(watch, crashed)
            for host in (killed, crashed):
                await wait_for(
                    lambda host=host: has_guest(host),
                    within=10,
                    what=f"a client of {host.name}",
                )
            killed.kill_all()
            await crashed.crash()

        assert "silence" in ends["office-2"]
        assert "silence" not in ends["office-1"]
        assert crashed.processes() == killed.processes() == set()


async def has_guest(host: Host) -> bool:
    """Whether the server on this host has a connection."""
    ask = ["ss", "-Htn", "state", "established", "sport", "=", str(PORT)]
    return bool((await host.run(ask)).stdout)


# --- together and afterwards ---------------------------------------------------------


async def test_two_labs_at_once_do_not_disturb_each_other():
    async with open_lab(["laptop", "office-1"]) as one, open_lab(["laptop"]) as two:
        await serve(one.host("office-1"))
        sleeper = await two.host("laptop").start(["sleep", "600"])

        assert "hello" in await greet(one.host("laptop"), "office-1", patience=0.2)
        assert not await reaches(two.host("laptop"), one.host("office-1").ipv4)
        for host in one:
            host.kill_all()
        assert sleeper.returncode is None


async def test_nothing_stays_after_an_error():
    names: list[str] = []

    async def go_wrong() -> None:
        async with open_lab(["laptop", "office-1"]) as lab:
            await lab.host("laptop").delay(0.01)
            await lab.host("laptop").start(["sh", "-c", "sleep 600 & sleep 600"])
            await lab.host("office-1").start(["unshare", "-Urn", "sleep", "600"])
            assert traces(lab.name)
            names.append(lab.name)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await go_wrong()

    assert traces(*names) == []


async def test_nothing_stays_after_a_cancellation():
    name = ""

    with trio.CancelScope() as scope:
        async with open_lab(["laptop"]) as lab:
            name = lab.name
            await lab.host("laptop").start(["sleep", "600"])
            scope.cancel()
            await lab.host("laptop").run(["sleep", "600"])

    assert scope.cancelled_caught
    assert traces(name) == []


async def test_nothing_stays_of_a_lab_whose_hosts_do_not_come_up(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lab_namespaces, "CHECKOUT", Path("/nowhere"))
    before = traces(f"ae{os.getpid()}")

    with pytest.raises(LabError, match=r"host laptop did not come up: .*/nowhere"):
        await open_lab(["laptop", "office-1"]).__aenter__()

    assert traces(f"ae{os.getpid()}") == before == []


@pytest.mark.parametrize("names", [[], ["Büro"], ["-a"], ["a", "a"], ["localhost"]])
async def test_hosts_that_cannot_be_are_refused(names: list[str]):
    with pytest.raises(LabError):
        await open_lab(names).__aenter__()


async def test_nothing_stays_after_an_interrupt():
    owner, name = await start_owner()

    owner.send_signal(signal.SIGINT)
    await owner.wait()

    assert traces(name) == []


async def test_the_guard_cleans_up_after_an_owner_killed_with_9():
    owner, name = await start_owner()

    owner.kill()
    await owner.wait()

    await wait_for(lambda: not traces(name), within=10, what="the end of the lab")


async def test_a_stale_lab_is_swept_when_the_next_one_opens():
    owner, name = await start_owner()
    (guard,) = (
        child
        for child in psutil.Process(owner.pid).children()
        if "lab-guard" in child.cmdline()
    )
    guard.kill()
    owner.kill()
    await owner.wait()
    assert traces(name)

    async with open_lab(["laptop"]):
        assert traces(name) == []


async def test_an_ordinary_user_builds_a_lab_in_a_user_namespace():
    # The user of a lab's host is as ordinary as they come.
    inside = "id -u; hostname; ping -c1 -q host-2; ip -o -4 addr show eth0"

    async with open_lab(["laptop"]) as lab:
        host = lab.host("laptop")
        argv = [host.python, "-m", "aemesh.testing.lab", "--hosts", "2", "--"]
        said = (await host.run([*argv, "sh", "-c", inside])).stdout
        left = await host.run(["sh", "-c", "ls /var/tmp; ls /run/netns"], check=False)

        assert said.split()[:2] == ["64001", "host-1"]
        assert " 0% packet loss" in said
        assert "10.77.0.1/24" in said
        assert left.stdout.split() == [lab.name]


async def test_avahi_on_one_host_sees_what_zeroconf_registers_on_another():
    async with open_lab(["laptop", "office-1"]) as lab:
        laptop, office = lab
        argv = [office.python, "-c", WORKER]
        async with (
            open_avahi(laptop) as avahi,
            office.open_process(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as worker,
        ):
            assert worker.stdout is not None
            assert await worker.stdout.receive_some() == b"up\n"

            lines = await avahi.browse("_aemesh-worker._tcp")

        seen = [line.split(";") for line in lines if line.startswith("=")]
        assert ["w1", office.ipv4, str(PORT)] in [[s[3], s[7], s[8]] for s in seen]


# --- words --------------------------------------------------------------------------


async def test_a_wait_that_was_for_nothing_says_what_for():
    with pytest.raises(LabError, match=r"within 0.05 s there was not a miracle"):
        await wait_for(lambda: False, within=0.05, what="a miracle")


async def test_an_unknown_host_is_told_with_the_known_ones():
    async with open_lab(["laptop"]) as lab:
        with pytest.raises(LabError, match=r"no host office: it has laptop"):
            lab.host("office")
