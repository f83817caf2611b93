"""The Python API over a real socket, with a facade in memory."""

from __future__ import annotations

import errno
import inspect
import socket
import stat
import subprocess
import sys
import threading
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import aemesh
from aemesh import errors
from aemesh.client import transport
from aemesh.client.transport import Transport, error_in
from aemesh.errors import (
    AemeshError,
    EngineError,
    NoMasterError,
    NotBegunError,
    UnknownNameError,
    UnreachableError,
    UsageError,
)
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.livefolder import live_folders
from aemesh.master.control import serve_control
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def api(tmp_path: Path):
    return MemoryControl(
        state_dir=str(tmp_path),
        members={"office-1": "A", "office-2": None},
        engines={"A": "dask", "B": "command"},
        env={"PLAIN": "1", "CA": "{tls}/ca.pem", "KEY": "{tls}/key.pem"},
    )


def test_without_a_file_to_open_nothing_is_begun_and_no_master_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def connected(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(transport, "connected", connected)

    with pytest.raises(NotBegunError, match="Too many open files") as caught:
        aemesh.Mesh(tmp_path).status()
    assert "ulimit" in (caught.value.hint or "")


@asynccontextmanager
async def serving(api: MemoryControl, state: Path):
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, state / "master" / SOCKET_FILE)
        yield
        nursery.cancel_scope.cancel()


async def asked(function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


async def test_a_group_knows_its_members(api: MemoryControl, tmp_path: Path):
    """Shows: E6."""
    async with serving(api, tmp_path):
        group = await asked(aemesh.connect, "A", state=tmp_path)

        assert (await asked(group.status)).members == ("office-1",)
        assert [w.name for w in await asked(lambda: group.workers)] == ["office-1"]
        assert (group.name, group.engine) == ("A", "dask")


async def test_connecting_to_an_unknown_group_says_which_there_are(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        with pytest.raises(UnknownNameError, match="known: A, B"):
            await asked(aemesh.connect, "nothing", state=tmp_path)


async def test_a_group_that_was_closed_meanwhile_is_unknown(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        group = await asked(aemesh.connect, "A", state=tmp_path)
        await api.close_group("A")

        with pytest.raises(UnknownNameError):
            await asked(group.status)


async def test_a_script_finds_its_group_in_the_environment(
    api: MemoryControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with serving(api, tmp_path):
        with await asked(aemesh.connect, "A", state=tmp_path) as group:
            env = await asked(group.environment)
            monkeypatch.setenv("AEMESH_GROUP", env["AEMESH_GROUP"])
            monkeypatch.setenv("AEMESH_STATE", env["AEMESH_STATE"])

            assert (await asked(aemesh.connect)).name == "A"


def test_without_a_name_and_without_a_variable_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AEMESH_GROUP", raising=False)

    with pytest.raises(UsageError, match="which group"):
        aemesh.connect(state=tmp_path)


@pytest.mark.parametrize("name", ["../x", "a b", "-", "x" * 65, 5, b"A"])
def test_what_can_be_no_group_s_name_is_said_before_anybody_is_asked(
    name: Any, tmp_path: Path
):
    for ask in (aemesh.connect, aemesh.Mesh(tmp_path).group_status):
        with pytest.raises(UsageError, match="group"):
            ask(name)


def test_without_a_master_the_error_says_how_to_start_one(tmp_path: Path):
    with pytest.raises(NoMasterError) as caught:
        aemesh.connect("A", state=tmp_path)

    assert str(tmp_path) in str(caught.value)
    assert "aemesh master" in caught.value.hint


async def test_credentials_are_private_fit_together_and_end_with_the_group(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        with await asked(aemesh.connect, "A", state=tmp_path) as group:
            env = await asked(group.environment)
            again = await asked(group.environment)
            folder = tmp_path.joinpath(env["CA"]).parent
            modes = [
                stat.S_IMODE(p.stat().st_mode) for p in (folder, *folder.iterdir())
            ]
            key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(
                (folder / "cert.pem").read_bytes()
            )
            authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    assert env == again
    assert env["PLAIN"] == "1"
    assert folder.parent == tmp_path / "clients"
    assert modes == [0o700, 0o600, 0o600, 0o600]
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(authority)
    assert not folder.exists()


async def test_an_engine_without_tls_needs_no_credentials(
    api: MemoryControl, tmp_path: Path
):
    api.env = {"PLAIN": "1"}

    async with serving(api, tmp_path):
        group = await asked(aemesh.connect, "B", state=tmp_path)
        env = await asked(group.environment)
        (sign,) = live_folders(tmp_path / "clients")
        assert not list(sign.iterdir())
        group.close()

    assert env == {"PLAIN": "1", "AEMESH_GROUP": "B", "AEMESH_STATE": str(tmp_path)}
    assert not live_folders(tmp_path / "clients")


async def test_credentials_that_nobody_closed_end_with_the_interpreter(
    api: MemoryControl, tmp_path: Path
):
    code = (
        "import aemesh, sys; g = aemesh.connect('A', state=sys.argv[1]); "
        "print(g.environment()['CA'])"
    )

    async with serving(api, tmp_path):
        done = await trio.run_process(
            [sys.executable, "-c", code, str(tmp_path)], capture_stdout=True
        )
        folder = tmp_path.joinpath(done.stdout.decode().strip()).parent

        assert folder.parent == tmp_path / "clients"
        assert not folder.exists()


async def test_a_group_of_another_engine_has_no_client(
    api: MemoryControl, tmp_path: Path
):
    async with serving(api, tmp_path):
        group = await asked(aemesh.connect, "B", state=tmp_path)

        with pytest.raises(EngineError, match="its engine is command"):
            group.client()


CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, AemeshError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_comes_back_as_its_own_class(kind: type[AemeshError]):
    sent = kind.__new__(kind)
    AemeshError.__init__(sent, "what", why="why", hint="hint")

    came = error_in(msgspec.json.encode(sent.fields()))

    assert type(came) is kind
    assert came.fields() == sent.fields()
    assert str(came) == "what: why"


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"5\r\none\nt\r\n", [b"one\n"]),
        (b"4\r\none\n\r\n", [b"one\n"]),
        (b"4\r\none\n\r\n5\r\ntw", [b"one\n"]),
        (b"5\r\none\nt\r\n3\r\nwo\n\r\n", [b"one\n", b"two\n"]),
        (b"3\r\none\r\n0\r\n\r\n", []),
    ],
)
def test_a_master_that_dies_in_its_answer_is_not_one_that_ended_it(
    tmp_path: Path, body: bytes, lines: list[bytes]
):
    path = tmp_path / "control.sock"
    head = b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        heard: list[bytes] = []

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(head + body)

        dying = threading.Thread(target=answer)
        dying.start()
        told = Transport(path).lines("GET", "/v1/events")
        with pytest.raises(UnreachableError, match="hung up"):
            deque(map(heard.append, told), maxlen=0)
        dying.join()

    assert heard == lines


def test_importing_aemesh_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import aemesh; "
        "print(sorted(set(sys.modules) - before - {'aemesh', '__future__', 'typing'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.strip()
    assert "aemesh." not in loaded
    assert "msgspec" not in loaded
