"""The two Dask scripts as the agents run them: processes, JSON lines, TLS."""
# What goes through Dask, and what it hands back, is anything.

from __future__ import annotations

import datetime as dt
import functools
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

psutil = pytest.importorskip("psutil")
distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SCRIPTS = Path(__file__).parents[2] / "aemesh" / "engines" / "dask"
BESIDE = (
    "dask_departure.py",
    "dask_door.py",
    "dask_page.py",
    "dask_plan.py",
    "dask_preload.py",
    "dask_tls.py",
)
TLS = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
HEAD_HOST, NODE_HOST = "127.0.0.1", "127.0.0.2"  # Linux has all of 127/8 on loopback
# Two cores and other tests beside us: what takes tenths of a second may take this.
SOON = 10

# The workers cannot import this file; what they need of it travels inside the task.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


# Certificates


class Authority:
    """A group's own certificate authority."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "group")])
        self._cert = self._sign(self._key, self._name, authority=True)

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        name: x509.Name,
        *,
        authority: bool = False,
        days: int = 1,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=3))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def equip(self, folder: Path, *, name: str = "client", days: int = 1) -> Path:
        """Write a fresh key, its certificate and the authority's into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        # A leaf named as its issuer is would be taken for self-signed.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = self._sign(key, subject, days=days)
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes(self._cert.public_bytes(pem))
        (folder / "cert.pem").write_bytes(cert.public_bytes(pem))
        (folder / "key.pem").write_bytes(
            key.private_bytes(
                pem,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return folder


# The scripts


@dataclass
class Script:
    """A running script: what it said so far, and a way to wait for more."""

    process: trio.Process
    heard: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children()]

    async def say(self, **order: Any) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def listen(self) -> None:
        """Collect events; any line that is not one fails the test."""
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for said in map(json.loads, lines):
                self.heard.append(said)
                if said["event"] == "listening" and "port" in said:  # here, directly
                    await self.say(op="contact", name=said["name"], address="")
        assert rest == b""
        self.ended = True

    def all(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        wanted = {"event": event, **fields}.items()
        return [said for said in self.heard if wanted <= said.items()]

    async def hear(self, event: str, *, count: int = 1, **fields: Any) -> Any:
        await until(lambda: len(self.all(event, **fields)) >= count, what=event)
        return self.all(event, **fields)[count - 1]

    async def hang_up(self) -> int:
        """Close its stdin, as an agent that dies does; return the exit code."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.process.wait()


async def until(true: Callable[[], bool], *, what: str, within: float = SOON) -> None:
    with trio.move_on_after(within):
        while not true():  # these are facts of other processes
            await trio.sleep(0.01)
        return
    pytest.fail(f"{what}: not within {within} s")


@asynccontextmanager
async def open_script(name: str, folder: Path) -> AsyncIterator[Script]:
    """A spare, killed at the end with whatever it started."""
    # Where agents put it too: beside `aemesh.engines.dask` it would import that.
    for file in (name, *BESIDE):
        shutil.copy(SCRIPTS / file, folder)
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with (folder / f"{name}.log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error::DeprecationWarning", name],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    script = Script(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script.listen)
            yield script
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                for child in psutil.Process(process.pid).children():
                    child.kill()
                process.kill()
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


@dataclass
class Group:
    """A head, its nodes and a client, all of one authority."""

    authority: Authority
    folder: Path
    head: Script
    address: str
    nodes: list[Script]
    client: Any = None

    def workers_of(self, number: int) -> list[str]:
        return [said["address"] for said in self.nodes[number].all("registered")]

    async def submit(self, function: Callable[..., Any], *args: Any, **how: Any) -> Any:
        return await in_thread(self.client.submit, function, *args, pure=False, **how)

    async def result(self, future: Any) -> Any:
        return await in_thread(future.result, timeout=SOON)

    async def who_has(self, futures: list[Any]) -> list[str]:
        """Return all holders of these results."""
        told = await in_thread(self.client.who_has, futures)
        return [where for places in told.values() for where in places]

    async def wait_moving(self, member: str) -> None:
        """Wait until a member's departure has come so far."""
        for number in itertools.count(1000):
            await self.head.say(op="progress", id=number, member=member)
            if (await self.head.hear("progress", id=number)).get("moving"):
                return

    async def hold(self, future: Any) -> None:
        """Wait until a result exists, without fetching it."""
        await in_thread(distributed.wait, [future], timeout=SOON)


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await trio.to_thread.run_sync(functools.partial(function, *args, **kwargs))


def security_of(folder: Path) -> Any:
    paths = {name: str(folder / file) for name, file in TLS.items()}
    return distributed.Security(
        require_encryption=True,
        tls_ca_file=paths["ca"],
        tls_client_cert=paths["cert"],
        tls_client_key=paths["key"],
    )


@asynccontextmanager
async def open_group(
    folder: Path,
    *,
    members: int = 1,
    processes: int = 1,
    config: dict[str, Any] | None = None,
) -> AsyncIterator[Group]:
    authority = Authority()
    authority.equip(folder)
    async with AsyncExitStack() as stack:
        head = await stack.enter_async_context(open_script("dask_head.py", folder))
        nodes: dict[str, Script] = {}
        for number in range(members):
            label = f"office-{number}.4"
            own = authority.equip(folder / label, name=label)
            script = await stack.enter_async_context(open_script("dask_node.py", own))
            nodes[label] = script
        for script in (head, *nodes.values()):
            await script.hear("warm")
        await head.say(op="open", host=HEAD_HOST, port=0, tls=TLS, config=config or {})
        address = (await head.hear("ready"))["address"]
        group = Group(authority, folder, head, address, list(nodes.values()))
        for label, node in nodes.items():
            await node.say(
                op="open",
                scheduler=address,
                host=NODE_HOST,
                name=label,
                processes=processes,
                threads=1,
                tls=TLS,
                memory_limit=None,
                local_directory=".",
                config=config or {},
                preload=["colorsys", "no_such"],
            )
        for node in group.nodes:
            await node.hear("up")
        group.client = await in_thread(
            distributed.Client, address, security=security_of(folder), timeout=SOON
        )
        try:
            yield group
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(group.client.close, 0.5)


def wait_then(value: Any, seconds: float) -> Any:
    """A task that takes its time."""
    threading.Event().wait(seconds)
    return value


def short_task(value: int) -> int:
    return wait_then(value, 0.01)


def long_task(value: int) -> int:
    return wait_then(value, 2.0)


def unheard_task(value: int) -> int:
    return wait_then(value, 0.0)


def plus_one(value: int) -> int:
    return value + 1


def listening(pid: int) -> list[tuple[str, int]]:
    connections = psutil.Process(pid).net_connections()
    return [tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN]


def host_port(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("tls://").split(":")
    return host, int(port)


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    left = [p for p in psutil.Process().children() if "dask_" in " ".join(p.cmdline())]
    assert left == []


# Opening


async def test_a_warm_spare_opens_and_computes(tmp_path: Path) -> None:
    async with open_group(tmp_path, processes=2) as group:
        results = await in_thread(group.client.map, plus_one, range(20))

        assert await in_thread(group.client.gather, results) == list(range(1, 21))

        assert {said["name"] for said in group.nodes[0].all("registered")} == {
            "office-0.4-0",
            "office-0.4-1",
        }
        added = await group.head.hear("worker-added", count=2)
        assert added["host"] == NODE_HOST
        await group.head.say(op="info", id=7)
        info = await group.head.hear("info", id=7)
        assert info["workers"] == 2
        assert info["tasks"] == {"memory": 20}


async def test_settings_of_the_group_hold_on_both_sides(tmp_path: Path) -> None:
    """Shows: E2; as text, read as Dask reads its variables."""
    saturation, stolen = "distributed.scheduler.worker-saturation", "0.25"
    target = "distributed.worker.memory.target"
    config = {saturation: "inf", target: stolen}
    async with open_group(tmp_path, config=config) as group:
        done = await group.submit(setting_and_modules, target)
        there, modules = await group.result(done)
        here = await in_thread(group.client.run_on_scheduler, saturation_of)

        assert (there, here) == (0.25, float("inf"))
        assert modules == ["colorsys"]
        (told,) = group.nodes[0].all("unimported")
        assert told["name"] == "no_such"
        assert told["reason"].startswith("ModuleNotFoundError")


def setting_and_modules(name: str) -> tuple[Any, list[str]]:
    config: Any = importlib.import_module("dask.config")
    return config.get(name), [m for m in ("colorsys", "no") if m in sys.modules]


def saturation_of(dask_scheduler: Any) -> float:
    return dask_scheduler.WORKER_SATURATION


async def test_the_parent_has_no_thread_when_it_forks(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        assert psutil.Process(group.nodes[0].pid).num_threads() == 1


async def test_an_unknown_or_broken_order_is_answered_not_fatal(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        for script in (group.head, *group.nodes):
            await script.say(op="nonsense", id=1)
            assert script.process.stdin is not None
            await script.process.stdin.send_all(b"{\n")
            await script.hear("error", count=2)

        assert await group.result(await group.submit(plus_one, 1)) == 2


async def test_forked_workers_draw_different_numbers(tmp_path: Path) -> None:
    pytest.importorskip("numpy")

    def draw() -> tuple[float, float]:
        numpy_random = importlib.import_module("numpy.random")
        return random.random(), float(numpy_random.random())

    async with open_group(tmp_path, processes=2) as group:
        drawn = [
            await group.result(await group.submit(draw, workers=[worker]))
            for worker in group.workers_of(0)
        ]

    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


async def test_what_a_task_prints_stays_out_of_the_protocol(tmp_path: Path) -> None:
    def chat() -> int:
        print("from print")
        os.write(1, b"from write\n")
        subprocess.run(["echo", "from a child"], check=True)
        return 5

    async with open_group(tmp_path) as group:
        assert await group.result(await group.submit(chat)) == 5
        await group.nodes[0].say(op="close")
        await group.nodes[0].hear("closed")

    log = (tmp_path / "office-0.4" / "dask_node.py.log").read_text()
    assert all(text in log for text in ("from print", "from write", "from a child"))


# Outsiders


async def test_only_tls_on_the_chosen_address_listens(tmp_path: Path) -> None:
    """Shows: T10, E2; Threat: 74."""
    async with open_group(tmp_path, processes=2) as group:
        node = group.nodes[0]

        assert listening(group.head.pid) == [host_port(group.address)]
        assert listening(node.pid) == []
        heard = itertools.chain.from_iterable(map(listening, node.children))
        assert sorted(heard) == sorted(map(host_port, group.workers_of(0)))


async def test_a_scheduler_is_reached_at_one_more_address(tmp_path: Path) -> None:
    """Shows: D7; as a laptop has it that changes networks; by TLS, as at the first."""
    async with open_group(tmp_path) as group:
        head, (host, port) = group.head, host_port(group.address)
        await head.say(op="listen", id=1, host="127.0.0.9")
        told = await head.hear("listening", id=1)
        await head.say(op="listen", id=2, host="127.0.0.9")
        again = await head.hear("listening", id=2)
        await head.say(op="listen", id=3, host=host)
        first = await head.hear("listening", id=3)
        other = await in_thread(
            distributed.Client,
            told["address"],
            security=security_of(group.folder),
            timeout=SOON,
        )
        result = await in_thread(other.submit(plus_one, 1).result)
        await in_thread(other.close, 0.5)

        assert result == 2
        assert told["address"] == again["address"] == f"tls://127.0.0.9:{port}"
        assert first["address"] == group.address
        assert sorted(listening(head.pid)) == [(host, port), ("127.0.0.9", port)]


async def test_an_address_that_is_not_ours_is_answered_not_fatal(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path) as group:
        await group.head.say(op="listen", id=1, host="192.0.2.1")
        error = await group.head.hear("error", id=1)
        await group.head.say(op="info", id=2)
        await group.head.hear("info", id=2)

        assert "assign requested address" in error["message"]


def outsider_context(folder: Path | None, *, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is not the outsider's checks we test
    context.minimum_version = context.maximum_version = version
    if folder is not None:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def knock(address: str, context: ssl.SSLContext | None) -> bytes:
    """What an outsider gets to read after saying something; b"" if thrown out."""
    stream: Any = await trio.open_tcp_stream(*host_port(address))
    async with stream:
        if context is not None:
            stream = trio.SSLStream(stream, context, https_compatible=True)
        try:
            with trio.fail_after(SOON):
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                return bytes(await stream.receive_some(100))
        except trio.BrokenResourceError:
            return b""


async def test_outsiders_are_thrown_out_of_every_port(tmp_path: Path) -> None:
    """Threat: 74."""
    modern, old = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    stranger = Authority().equip(tmp_path / "stranger")
    async with open_group(tmp_path / "group") as group:
        folder = group.folder
        for address in (group.address, *group.workers_of(0)):
            assert await knock(address, None) == b""
            for who, version in ((None, modern), (stranger, modern), (folder, old)):
                context = outsider_context(who, version=version)
                assert await knock(address, context) == b""
            member = outsider_context(folder, version=modern)
            assert await knock(address, member) != b""  # the test itself can tell


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """Threat: 74."""
    authority = Authority()
    good, bad = authority.equip(tmp_path), authority.equip(tmp_path / "bad", days=-1)
    async with open_script("dask_head.py", good) as head:
        await head.say(op="open", host=HEAD_HOST, tls=TLS)
        address = (await head.hear("ready"))["address"]

        modern = ssl.TLSVersion.TLSv1_3
        assert await knock(address, outsider_context(good, version=modern)) != b""
        assert await knock(address, outsider_context(bad, version=modern)) == b""


async def test_a_member_of_another_group_is_refused(tmp_path: Path) -> None:
    """Threat: 75."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    Authority().equip(theirs)
    async with open_group(ours) as group, open_script("dask_node.py", theirs) as node:
        with pytest.raises(OSError, match=r"Timed out|TLS|SSL"):
            await in_thread(
                distributed.Client,
                group.address,
                security=security_of(theirs),
                timeout=1,
            )
        await node.say(
            op="open",
            scheduler=group.address,
            host=NODE_HOST,
            name="x#1",
            processes=1,
            tls=TLS,
        )
        await until(lambda: len(node.children) == 1, what="the worker process")
        await trio.sleep(0.3)  # it tries again and again, and nothing comes of it

        assert node.all("registered") == []
        assert group.head.all("worker-added", name="x#1-0") == []


# Expelled


async def hang_on(address: str, context: ssl.SSLContext) -> trio.SSLStream[Any]:
    """A connection that got an answer, and waits for more."""
    tcp = await trio.open_tcp_stream(*host_port(address))
    stream = trio.SSLStream(tcp, context, https_compatible=True)
    with trio.fail_after(SOON):
        assert await stream.receive_some(1000) != b""
    return stream


async def was_cut(stream: trio.SSLStream[Any]) -> bool:
    """Whether a connection ends by itself."""
    try:
        with trio.fail_after(SOON):
            return await stream.receive_some(1000) == b""
    except trio.BrokenResourceError:
        return True


async def test_a_refused_member_gets_into_no_port(tmp_path: Path) -> None:
    """Threat: 77."""
    async with open_group(tmp_path, members=2) as group:
        modern = ssl.TLSVersion.TLSv1_3
        gone = outsider_context(tmp_path / "office-1.4", version=modern)
        next_one = group.authority.equip(tmp_path / "office-1.5", name="office-1.5")
        back = outsider_context(next_one, version=modern)
        ports = [group.address, *group.workers_of(0)]
        for address in ports:
            assert await knock(address, gone) != b""

        for script in (group.head, group.nodes[0]):
            await script.say(op="refuse", member="office-1.4")
        await group.head.hear("worker-removed", name="office-1.4-0")

        for address in ports:
            await until_refused(address, gone)
            assert await knock(address, back) != b""
        assert await group.result(await group.submit(plus_one, 1)) == 2


async def until_refused(address: str, context: ssl.SSLContext) -> None:
    """Knock until nobody answers: a node's workers hear of it by way of the node."""
    with trio.fail_after(SOON):
        while await knock(address, context) != b"":
            pass


async def test_connections_of_a_refused_member_are_cut(tmp_path: Path) -> None:
    """Threat: 77."""
    async with open_group(tmp_path, members=2) as group:
        modern = ssl.TLSVersion.TLSv1_3
        gone = outsider_context(tmp_path / "office-1.4", version=modern)
        ports = [group.address, *group.workers_of(0)]
        streams = [await hang_on(address, gone) for address in ports]

        for script in (group.head, group.nodes[0]):
            await script.say(op="refuse", member="office-1.4")

        for stream in streams:
            assert await was_cut(stream)
            await trio.aclose_forcefully(stream)
        with trio.fail_after(SOON):  # its own worker was on such a connection too
            assert await group.nodes[1].process.wait() == 3
        assert await group.result(await group.submit(plus_one, 1)) == 2


async def test_a_refused_member_is_not_dialled(tmp_path: Path) -> None:
    """Threat: 77."""

    async def dial(address: str, dask_worker: Any) -> str:
        try:
            async with dask_worker.rpc(address) as peer:
                return str((await peer.identity())["type"])
        except OSError:
            return "refused"

    async with open_group(tmp_path, members=2) as group:
        (ours,), (theirs,) = group.workers_of(0), group.workers_of(1)
        run = functools.partial(in_thread, group.client.run, dial, theirs)
        assert (await run(workers=[ours]))[ours] == "TlsWorker"

        await group.nodes[0].say(op="refuse", member="office-1.4")

        with trio.fail_after(SOON):
            while (await run(workers=[ours]))[ours] != "refused":
                pass


async def test_a_hanging_worker_is_replaced_by_one_that_knows_who_is_refused(
    tmp_path: Path,
) -> None:
    """Threat: 77."""
    async with open_group(tmp_path) as group:
        node = group.nodes[0]
        last = group.authority.equip(tmp_path / "last", name="last")
        gone = outsider_context(last, version=ssl.TLSVersion.TLSv1_3)
        os.kill(node.children[0], signal.SIGSTOP)

        await node.say(op="refuse", member="last")
        for number in range(5000):  # more than a pipe holds
            await node.say(op="refuse", member=f"office-{number}.4")

        assert (await node.hear("died"))["code"] == -signal.SIGKILL
        again = await node.hear("registered", count=2)
        assert await knock(again["address"], gone) == b""


# Dying


async def test_a_killed_worker_is_replaced_and_results_hold(tmp_path: Path) -> None:
    async with open_group(tmp_path, processes=2) as group:
        node = group.nodes[0]
        victim = node.all("registered")[0]
        futures = await in_thread(group.client.map, wait_then, range(20), [0.05] * 20)
        await trio.sleep(0.2)

        os.kill(victim["pid"], signal.SIGKILL)

        assert await in_thread(group.client.gather, futures) == list(range(20))
        died = await node.hear("died")
        assert (died["pid"], died["code"]) == (victim["pid"], -signal.SIGKILL)
        again = await node.hear("registered", count=2, name=victim["name"])
        assert again["pid"] in node.children


async def test_a_crash_loop_slows_down(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        node = group.nodes[0]
        for count, after in enumerate((0.0, 0.25, 0.5), start=1):
            registered = await node.hear("registered", count=count)
            os.kill(registered["pid"], signal.SIGKILL)

            assert (await node.hear("died", count=count))["again_after"] == after


async def test_a_task_that_exits_with_zero_still_is_a_death(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        await group.submit(os._exit, 0)

        assert (await group.nodes[0].hear("died"))["code"] == 0


async def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    async with open_group(tmp_path, processes=2) as group:
        node = group.nodes[0]
        children = node.children

        node.process.kill()

        await until(lambda: not any(map(psutil.pid_exists, children)), what="the end")


async def test_a_node_ends_when_its_scheduler_is_gone(tmp_path: Path) -> None:
    async with open_group(tmp_path, members=2) as group:
        orderly, cut_off = group.nodes
        os.kill(cut_off.children[0], signal.SIGSTOP)  # it will hear of nothing
        await group.head.say(op="close")
        assert await orderly.process.wait() == 0
        assert (await orderly.hear("left"))["reason"] == "scheduler-close"
        assert await group.head.process.wait() == 0


async def test_a_node_tells_when_it_was_cut_off(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        group.head.process.kill()

        with trio.fail_after(SOON):
            assert await group.nodes[0].process.wait() == 3


async def test_the_end_of_stdin_ends_everything(tmp_path: Path) -> None:
    async with open_group(tmp_path, processes=2) as group:
        node, head = group.nodes[0], group.head
        children = node.children
        await group.submit(wait_then, None, 60)  # a task that does not want to end
        await trio.sleep(0.1)

        for script in (node, head):
            with trio.fail_after(2.5):
                assert await script.hang_up() == 0
        assert not any(map(psutil.pid_exists, children))


async def test_a_spare_that_is_not_needed_goes(tmp_path: Path) -> None:
    for name in ("dask_head.py", "dask_node.py"):
        async with open_script(name, tmp_path) as spare:
            await spare.hear("warm")
            with trio.fail_after(2):
                assert await spare.hang_up() == 0


async def test_a_member_is_idle_from_the_end_of_its_last_task(tmp_path: Path) -> None:
    async with open_group(tmp_path, members=2) as group:
        one, two = "office-0.4", "office-1.4"

        async def idle(number: int) -> dict[str, float]:
            await group.head.say(op="idle", id=number)
            return (await group.head.hear("idle", id=number))["members"]

        there = {"workers": group.workers_of(0)}
        gate = distributed.Event("gate", client=group.client)
        begun = distributed.Event("begun", client=group.client)

        def work() -> None:
            distributed.Event("begun").set()
            distributed.Event("gate").wait()

        running = await group.submit(work, **there)
        assert await in_thread(begun.wait, SOON)
        first = await idle(1)
        await in_thread(gate.set)
        await group.result(running)
        second = await idle(2)
        third = await idle(3)

        assert first[one] == 0.0
        assert 0.0 < first[two] < second[two]
        assert second[one] < second[two]
        assert second[one] < third[one]


async def test_a_member_that_holds_an_actor_is_never_idle(tmp_path: Path) -> None:
    async with open_group(tmp_path) as group:
        actor = await group.submit(threading.Barrier, 1, actor=True)
        await group.hold(actor)

        await group.head.say(op="idle", id=1)

        assert (await group.head.hear("idle", id=1))["members"] == {"office-0.4": 0.0}


# Leaving


async def test_retiring_ends_tasks_and_moves_results(tmp_path: Path) -> None:
    async with open_group(tmp_path, members=2) as group:
        leaving = group.workers_of(1)
        where = {"workers": leaving, "allow_other_workers": True}
        kept = await group.submit(os.urandom, 8, **where)  # no other would be the same
        before = await group.result(kept)
        running = await group.submit(lambda: wait_then(os.getpid(), 1), **where)
        await trio.sleep(0.2)
        worker_pid = group.nodes[1].children[0]

        await group.head.say(op="retire", id=3, member="office-1.4", by=SOON)

        retired = await group.head.hear("retired", id=3)
        assert retired["workers"] == leaving
        assert (retired["moved"], retired["lost"], retired["restarted"]) == (2, 0, 0)
        assert await group.nodes[1].process.wait() == 0
        assert await group.result(kept) == before
        assert await group.result(running) == worker_pid  # it ended where it ran
        assert group.nodes[1].all("died") == []
        assert (await group.head.hear("worker-removed"))["name"] == "office-1.4-0"


async def test_retiring_ends_at_its_deadline(tmp_path: Path) -> None:
    async with open_group(tmp_path, members=2) as group:
        leaving, staying = group.workers_of(1), group.workers_of(0)

        def slow_there(there: list[str]) -> str:
            address = distributed.get_worker().address
            wait_then(None, 60 if address in there else 0)
            return str(address)

        running = await group.submit(
            slow_there, leaving, workers=leaving, allow_other_workers=True
        )
        await trio.sleep(0.2)
        started = trio.current_time()

        await group.head.say(op="retire", id=3, member="office-1.4", by=0.8)

        retired = await group.head.hear("retired", id=3)
        assert 0.8 <= trio.current_time() - started < 2
        assert (retired["moved"], retired["restarted"]) == (0, 1)
        assert await group.result(running) in staying
        with trio.fail_after(3):
            assert await group.nodes[1].process.wait() == 0


async def test_the_last_member_keeps_its_results_until_the_deadline(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path) as group:
        await group.hold(future := await group.submit(plus_one, 1))

        await group.head.say(op="retire", id=1, member="office-0.4", by=1)

        assert await group.result(future) == 2
        retired = await group.head.hear("retired", id=1)
        assert (retired["moved"], retired["lost"]) == (0, 1)


async def test_what_others_held_before_counts_as_neither_moved_nor_lost(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path, members=2) as group:
        value = await group.submit(plus_one, 1, workers=group.workers_of(1))
        await group.hold(value)
        fetched = await group.submit(plus_one, value, workers=group.workers_of(0))
        await group.hold(fetched)

        await group.head.say(op="retire", id=1, member="office-1.4", by=SOON)

        retired = await group.head.hear("retired", id=1)
        assert (retired["moved"], retired["lost"]) == (0, 0)


async def test_until_it_has_to_move_a_member_takes_what_it_can_finish(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path, members=2) as group:
        leaving, staying = group.workers_of(1), group.workers_of(0)
        either = {"workers": leaving, "allow_other_workers": True}
        for known in (short_task, long_task):  # Dask learns what each takes
            await group.hold(await group.submit(known, 0, workers=staying))

        await group.head.say(op="expect", id=1, member="office-1.4", by=60)
        await group.head.hear("expected", id=1)
        await group.head.say(
            op="retire", id=2, member="office-1.4", by=1.8, haste="late"
        )
        short = [await group.submit(short_task, n, workers=leaving) for n in range(4)]
        long = [await group.submit(long_task, n, **either) for n in range(2)]
        unheard = await group.submit(unheard_task, 1, **either)
        for future in short:
            await group.hold(future)
        retired_early = group.head.all("retired")
        places = await group.who_has(short)
        for future in (*long, unheard):
            await group.hold(future)
        retired = await group.head.hear("retired", id=2)

        assert retired_early == []
        assert set(leaving) <= set(places)
        assert (retired["lost"], retired["restarted"]) == (0, 0)
        assert (retired["moved"], retired["finished"]) == (4, 4)
        assert set(await group.who_has([*long, unheard])) == {*staying}


async def test_a_member_that_stays_after_all_is_in_full_use_again(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path, members=2) as group:
        one = group.workers_of(1)
        kept = await group.submit(os.urandom, 8, workers=one)
        await group.hold(kept)
        begun = distributed.Event("begun", client=group.client)
        gate = distributed.Event("gate", client=group.client)

        def work() -> str:
            distributed.Event("begun").set()
            distributed.Event("gate").wait()
            return "ended"

        running = await group.submit(work, workers=one)
        assert await in_thread(begun.wait, SOON)
        await group.head.say(op="retire", id=1, member="office-1.4", by=SOON)
        await group.wait_moving("office-1.4")

        await group.head.say(op="expect", id=2, member="office-1.4", by=None)

        await group.head.hear("stays", id=1)
        await in_thread(gate.set)
        assert await group.result(running) == "ended"
        assert await group.result(await group.submit(plus_one, 1, workers=one)) == 2
        assert group.head.all("worker-removed") == []
        await group.head.say(op="retire", id=3, member="office-1.4", by=SOON)
        assert (await group.head.hear("retired", id=3))["lost"] == 0


async def test_who_leaves_now_moves_nothing_and_says_what_is_lost(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path, members=2) as group:
        there = {"workers": group.workers_of(1), "allow_other_workers": True}
        kept = []
        for n in range(3):  # one by one: what waits in a queue may be stolen
            kept.append(await group.submit(plus_one, n, **there))
            await group.hold(kept[-1])
        lost = sum(where in group.workers_of(1) for where in await group.who_has(kept))

        await group.head.say(op="retire", id=1, member="office-1.4", by=60, haste="now")

        retired = await group.head.hear("retired", id=1)
        assert lost == 3
        assert (retired["moved"], retired["lost"]) == (0, 3)
        for n, future in enumerate(kept):
            assert await group.result(future) == n + 1


async def test_results_arrive_in_many_pieces_and_the_receipt_has_their_bytes(
    tmp_path: Path,
) -> None:
    async with open_group(tmp_path, members=2, processes=2) as group:
        there = {"workers": group.workers_of(1)}
        sizes = [1000 * (n + 1) for n in range(300)]
        kept = [await group.submit(os.urandom, size, **there) for size in sizes]
        for future in kept:
            await group.hold(future)

        await group.head.say(op="retire", id=1, member="office-1.4", by=SOON)

        retired = await group.head.hear("retired", id=1)
        assert (retired["moved"], retired["lost"]) == (len(sizes), 0)
        assert sum(sizes) <= retired["moved_bytes"] <= sum(sizes) + 100 * len(sizes)
        assert [len(await group.result(one)) for one in kept[:3]] == sizes[:3]


async def test_a_silent_machine_is_got_over_in_seconds(tmp_path: Path) -> None:
    async with open_group(tmp_path, members=2) as group:
        silent, alive = group.workers_of(1), group.workers_of(0)
        there = {"workers": silent, "allow_other_workers": True}
        value = await group.submit(plus_one, 1, **there)
        await group.hold(value)
        os.kill(group.nodes[1].children[0], signal.SIGSTOP)  # as a cut cable: silence
        unfinished = await group.submit(plus_one, 10, **there)
        fetching = await group.submit(plus_one, value, workers=alive)
        await trio.sleep(0.5)
        assert fetching.status == "pending"  # it hangs in a fetch from the silent one
        results: dict[str, int] = {}

        async def fetch(name: str, future: Any) -> None:
            results[name] = await group.result(future)

        with trio.fail_after(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, "gathered", value)  # this hangs in it as well
                await trio.sleep(0.2)
                await group.head.say(op="remove", id=4, member="office-1.4")
                nursery.start_soon(fetch, "unfinished", unfinished)
                nursery.start_soon(fetch, "fetching", fetching)

        assert results == {"gathered": 2, "unfinished": 11, "fetching": 3}
        assert (await group.head.hear("removed", id=4))["workers"] == silent

        # The cable is mended: it learns that it is out, and does not come back.
        os.kill(group.nodes[1].children[0], signal.SIGCONT)
        with trio.fail_after(SOON):
            await group.nodes[1].process.wait()
        assert len(group.head.all("worker-added")) == 2
