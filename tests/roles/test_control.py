"""The control API: real hypercorn on a real unix socket, a facade in memory."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.client.mesh import Mesh
from aemesh.errors import (
    BugError,
    EngineError,
    NoMasterError,
    SettingsError,
    UnknownNameError,
    UsageError,
)
from aemesh.host.control.http import Stream
from aemesh.host.control.sockets import SOCKET_FILE, connected
from aemesh.master.control import serve_control
from aemesh.model.group import Receipt
from aemesh.model.view import EventView, OutputView
from aemesh.tasks.nursery import open_crew
from aemesh.testing.lab_needs import has_many_users
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, MutableMapping
    from pathlib import Path

NOBODY = 65534
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not has_many_users(), reason="only root can be another user"
)


@pytest.fixture
def api(tmp_path: Path) -> MemoryControl:
    return MemoryControl(
        state_dir=str(tmp_path),
        members={"office-1": "A", "office-2": "A", "office-3": None},
        engines={"A": "dask", "B": "command"},
    )


@asynccontextmanager
async def serving(api: MemoryControl, state: Path):
    """Serve `api` where the clients of this state directory look for it."""
    path = state / "master" / SOCKET_FILE
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, path)
        yield path
        nursery.cancel_scope.cancel()


async def asked(function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), abandon_on_cancel=True
        )


def raw(path: Path, method: str, target: str, body: bytes | None = None):
    """Send one request as a stranger to our client would; return status and body."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connected(path, 10)
    connection.request(method, target, body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


async def test_a_client_sees_what_the_facade_says(api: MemoryControl, tmp_path: Path):
    """Shows: A7."""
    async with serving(api, tmp_path):
        mesh = Mesh(tmp_path)

        assert await asked(mesh.status) == api.status()
        assert await asked(mesh.workers) == api.workers()
        assert await asked(mesh.groups) == api.groups()


async def test_a_group_is_opened_filled_and_closed(api: MemoryControl, tmp_path: Path):
    async with serving(api, tmp_path):
        mesh = Mesh(tmp_path)
        await asked(mesh.open_group, "C", "command")
        receipt = await asked(mesh.move, "office-1", "C")
        view = await asked(mesh.connect, "C")
        await asked(mesh.close_group, "C")

        assert isinstance(receipt, Receipt)
        assert (receipt.member, receipt.group) == ("office-1", "A")
        assert (view.group, view.engine) == ("C", "command")
        assert "C" not in api.engines


async def test_an_error_of_the_master_is_the_same_error_at_the_client(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        with pytest.raises(UnknownNameError) as caught:
            await asked(Mesh(tmp_path).move, "office-9", "A")

    assert caught.value.what == 'unknown worker "office-9"'
    assert caught.value.why == "known: office-1, office-2, office-3"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UsageError("x"), 400),
        (UnknownNameError("group", "x", []), 404),
        (SettingsError("x"), 409),
        (EngineError("x"), 500),
        (ExceptionGroup("of a nursery", [SettingsError("x")]), 409),
    ],
)
async def test_the_status_tells_the_kind_of_error(
    api: MemoryControl, tmp_path: Path, failure: Exception, status: int
):
    async with serving(api, tmp_path) as path:
        api.failure = failure

        assert (await asked(raw, path, "GET", "/v1/status"))[0] == status


async def test_a_bug_is_told_without_its_traceback(
    api: MemoryControl, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with serving(api, tmp_path) as path:
        api.failure = RuntimeError("a secret of the inside")
        status, content = await asked(raw, path, "GET", "/v1/workers")
        with pytest.raises(BugError):
            await asked(Mesh(tmp_path).workers)

    assert status == 500
    assert b'"ours/bug"' in content
    assert b"secret" not in content
    assert b"Traceback" not in content
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"worker":1,"group":"A"}', b'{"worker":"w"}', b"\xff",
     b'{"worker":"w","group":"../x"}', b'{"worker":"w","group":"A","more":1}'],
)  # fmt: skip
async def test_a_request_that_cannot_be_read_is_refused(
    api: MemoryControl, tmp_path: Path, body: bytes
):
    async with serving(api, tmp_path) as path:
        status, content = await asked(raw, path, "POST", "/v1/moves", body)

    assert status == 400
    assert b'"usage/words"' in content


async def test_a_request_that_is_too_long_is_refused(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path) as path:
        body = b" " * (limits.CONTROL_BODY_BYTES + 1)
        status, content = await asked(raw, path, "POST", "/v1/moves", body)

    assert status == 400
    assert str(limits.CONTROL_BODY_BYTES).encode() in content


async def test_what_is_not_there_is_said_in_json(api: MemoryControl, tmp_path: Path):
    async with serving(api, tmp_path) as path:
        assert (await asked(raw, path, "GET", "/v2/x"))[0] == 404
        status, content = await asked(raw, path, "PUT", "/v1/status")

    assert status == 405
    assert b'"usage/words"' in content


async def test_exec_yields_output_and_the_exit_of_each_member(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        pieces = await asked(lambda: list(Mesh(tmp_path).exec("A", ["hostname"])))

    assert [(p.worker, p.code) for p in pieces] == [
        ("office-1", None),
        ("office-1", 0),
        ("office-2", None),
        ("office-2", 0),
    ]


async def test_an_error_within_a_stream_is_raised_at_the_client(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        with pytest.raises(UnknownNameError):
            await asked(lambda: list(Mesh(tmp_path).exec("nothing", ["hostname"])))


async def test_a_command_ends_when_its_client_goes(api: MemoryControl, tmp_path: Path):
    api.output = [
        OutputView(worker="office-1", channel="stdout", data="eA==")
    ] * 100_000

    async with serving(api, tmp_path):
        pieces = Mesh(tmp_path).exec("A", ["yes"])
        assert (await asked(next, pieces)).data == "eA=="
        assert not api.exec_ended.is_set()
        pieces.close()

        with trio.fail_after(5):
            await api.exec_ended.wait()


async def test_a_stream_with_a_nursery_of_its_own_ends_when_its_client_goes():
    sending = trio.Event()
    ended = False

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        try:
            async with open_crew():  # as `aemesh.engines.command` has one
                yield b"y"
        finally:
            ended = True

    async def receive() -> dict[str, Any]:
        await sending.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await trio.sleep_forever()  # nobody reads it

    await Stream("text/plain", pieces())({}, receive, send)

    assert ended


async def test_events_are_the_history_and_then_what_happens(
    api: MemoryControl, tmp_path: Path
):
    api.tell("group.ready", "group A is ready", group="A")
    api.tell("worker.joined", "office-1 joined A", worker="office-1", group="A")

    async with serving(api, tmp_path):
        mesh = Mesh(tmp_path)
        history = await asked(lambda: list(mesh.events(follow=False)))
        live = mesh.events(after=1)
        first = await asked(next, live)
        api.tell("worker.lost", "office-1 is lost", worker="office-1")
        second = await asked(next, live)

    assert history == api.history[:2]
    assert [first.number, second.number] == [2, 3]
    assert isinstance(second, EventView)
    assert second.kind == "worker.lost"


async def test_a_browser_that_comes_back_gets_what_it_missed(
    api: MemoryControl, tmp_path: Path
):
    for number in range(3):
        api.tell("x", f"event {number}")

    def again(path: Path) -> bytes:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connected(path, 10)
        headers = {"Last-Event-ID": "2"}
        connection.request("GET", "/v1/events?after=0&follow=0", headers=headers)
        content = connection.getresponse().read()
        connection.close()
        return content

    async with serving(api, tmp_path) as path:
        content = await asked(again, path)

    assert content.count(b"id: ") == 1
    assert b"id: 3\ndata: {" in content


async def test_stop_is_answered_before_the_master_ends(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        await asked(Mesh(tmp_path).stop)

        with trio.fail_after(5):
            await api.stopped.wait()


async def test_the_socket_is_gone_when_the_master_is(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path) as path:
        assert path.is_socket()

    assert not path.exists()
    with pytest.raises(NoMasterError):
        Mesh(tmp_path).status()


async def test_a_socket_that_a_killed_master_left_is_replaced(
    api: MemoryControl, tmp_path: Path
):
    path = tmp_path / "master" / SOCKET_FILE
    path.parent.mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NoMasterError):
        Mesh(tmp_path).status()

    async with serving(api, tmp_path):
        assert (await asked(Mesh(tmp_path).status)).name == "laptop"


async def test_a_state_directory_deeper_than_socket_addresses_works(
    api: MemoryControl, tmp_path: Path
):
    deep = tmp_path.joinpath(*["a-folder-of-some-length"] * 12)
    deep.mkdir(parents=True)
    assert len(str(deep)) > 200

    async with serving(api, deep):
        assert (await asked(Mesh(deep).status)).name == "laptop"


async def test_a_folder_that_others_may_enter_is_refused(
    api: MemoryControl, tmp_path: Path
):
    path = tmp_path / "control.sock"
    os.chmod(tmp_path, 0o755)

    with pytest.raises(SettingsError, match="no place for the control socket"):
        await serve_control(api, path)

    assert not path.exists()


async def test_the_socket_is_for_its_owner_alone(api: MemoryControl, tmp_path: Path):
    async with serving(api, tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


_CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        sock.sendall(b"GET /v1/status HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
        print(len(sock.recv(1)))
    except OSError as error:
        print(type(error).__name__)
"""


def _as_nobody(path: str, cwd: Path) -> str:
    """Connect to `path` as another user; return what came of it.

    The program starts in `cwd`, which it could not reach by name any more.
    """
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", _CONNECT, path],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd=cwd,
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@as_root
async def test_another_user_does_not_reach_the_socket(
    api: MemoryControl, tmp_path: Path
):
    """Shows: A4."""
    async with serving(api, tmp_path) as path:
        os.chmod(path, 0o666)
        said = await asked(_as_nobody, "run/control.sock", path.parent.parent)

    assert said == "PermissionError"


@as_root
async def test_another_user_who_reaches_the_socket_is_dropped(
    api: MemoryControl, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with serving(api, tmp_path) as path:
        os.chmod(path, 0o666)
        os.chmod(path.parent, 0o755)
        said = await asked(_as_nobody, "control.sock", path.parent)

    assert said in {"0", "ConnectionResetError", "BrokenPipeError"}
    assert "dropped a connection of another user" in caplog.text


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(
    api: MemoryControl, tmp_path: Path
):
    api.output = [OutputView(worker="w", channel="stdout", data="A" * 60_000)] * 1000
    body = b'{"argv":["yes"]}'
    head = b"POST /v1/groups/A/exec HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"

    with trio.fail_after(5):
        async with serving(api, tmp_path) as path:
            with connected(path, 5) as sock:
                sock.sendall(head % len(body) + body)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert not api.exec_ended.is_set()

    assert api.exec_ended.is_set()


async def test_an_idle_client_does_not_hold_up_the_end(
    api: MemoryControl, tmp_path: Path
):
    with trio.fail_after(2):
        async with serving(api, tmp_path) as path:
            with connected(path, 5):
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_nonsense_ends_only_its_own_connection(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path) as path:
        with connected(path, 5) as sock:
            sock.sendall(b"\x16\x03\x01 nonsense \r\n\r\n" * 100)
            await asked(sock.recv, 4096)

        assert (await asked(Mesh(tmp_path).status)).name == "laptop"


async def test_serving_prints_and_logs_nothing_and_leaves_signals_alone(
    api: MemoryControl,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    async with serving(api, tmp_path) as path:
        await asked(Mesh(tmp_path).status)
        await asked(raw, path, "GET", "/v2/x")
        during = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    assert during == before
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_a_client_does_not_import_the_server():
    code = (
        "import sys, aemesh.client.mesh as c; "
        "print([m for m in ('trio', 'starlette', 'hypercorn', 'httpx', 'rich', "
        "'cryptography', 'distributed') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
