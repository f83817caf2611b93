"""An engine's page on a port of this machine, by the control socket to the page."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import threading
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

import aemesh
from aemesh.client import page as page_module
from aemesh.client.pagedoor import HEAD_BYTES
from aemesh.errors import EngineError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SOON = 10.0


class Full:
    """The listener of a process that has no file descriptors left."""

    def __init__(self) -> None:
        self.tries = 0
        self.tried = threading.Event()

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def accept(self) -> tuple[socket.socket, str]:
        self.tries += 1
        self.tried.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def shutdown(self, _how: int) -> None:
        """Nobody waits in `accept`."""

    def close(self) -> None:
        """There is nothing to close."""


def test_a_page_without_file_descriptors_does_not_try_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = Full()
    monkeypatch.setattr(page_module.socket, "create_server", lambda _: full)
    monkeypatch.setattr(page_module, "_BREATH_AFTER", 10 * SOON)
    page = page_module.LoopbackPage(lambda _: pytest.fail("nobody asked for it"))
    (serving,) = (one for one in threading.enumerate() if one.name == "aemesh page")
    assert full.tried.wait(SOON)

    page.close()
    serving.join(SOON)

    assert not serving.is_alive()
    assert full.tries == 1


class EchoPage:
    """Answers a request with its own head, and repeats what a websocket says."""

    def __init__(self, pages: list[EchoPage]) -> None:
        self.said = b""
        self.closed = trio.Event()
        self._tell, self._heard = trio.open_memory_channel[bytes](100)
        pages.append(self)

    async def send(self, data: bytes) -> None:
        first = not self.said
        self.said += data
        if not first:
            await self._tell.send(data)
        elif b"Upgrade" in data:
            await self._tell.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        else:
            fields = b"Content-Length: %d\r\nConnection: close" % len(data)
            await self._tell.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (fields, data))
            self._tell.close()

    async def receive(self) -> bytes:
        try:
            return await self._heard.receive()
        except trio.EndOfChannel:
            return b""

    async def aclose(self) -> None:
        self.closed.set()


async def sync(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    with trio.fail_after(SOON):
        return await trio.to_thread.run_sync(
            partial(function, *args, **named), abandon_on_cancel=True
        )


@asynccontextmanager
async def shown(folder: Path) -> AsyncIterator[tuple[aemesh.Group, list[EchoPage]]]:
    pages: list[EchoPage] = []
    api = MemoryControl(engines={"A": "dask"}, page=lambda: EchoPage(pages))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, folder / "master" / SOCKET_FILE)
        group = await sync(aemesh.connect, "A", state=folder)
        try:
            yield group, pages
        finally:
            await sync(group.close)
        nursery.cancel_scope.cancel()


def get(link: str, target: str, **fields: str) -> tuple[int, str, Any]:
    line = http.client.HTTPConnection(urlsplit(link).netloc, timeout=SOON)
    line.request("GET", target, headers=fields)
    answer = line.getresponse()
    text = answer.read().decode()
    line.close()
    return answer.status, text, answer.headers


def welcome(link: str) -> str:
    """Use the link as a browser does; return the cookie that it gives."""
    at = urlsplit(link)
    status, _, headers = get(link, f"{at.path}?{at.query}")
    assert (status, headers["location"]) == (303, "/status")
    return str(headers["set-cookie"].partition(";")[0])


async def test_the_page_comes_through_for_who_has_the_link(tmp_path: Path) -> None:
    """Shows: E2."""
    async with shown(tmp_path) as (group, pages):
        link = await sync(lambda: group.dashboard_link)
        assert link == await sync(lambda: group.dashboard_link)
        denied, _, _ = await sync(get, link, "/status")
        cookie = await sync(welcome, link)
        status, text, _ = await sync(get, link, "/status", Cookie=f"a=b; {cookie}")

        assert (denied, status) == (403, 200)
        assert text.startswith("GET /status HTTP/1.1\r\n")
        assert cookie.partition("=")[2] not in text
        with trio.fail_after(SOON):
            for page in pages:
                await page.closed.wait()
        assert [bool(page.said) for page in pages] == [False, True]  # a look, a page


async def test_a_websocket_goes_both_ways_until_either_end_closes(
    tmp_path: Path,
) -> None:
    """Shows: E2."""
    async with shown(tmp_path) as (group, pages):
        link = await sync(lambda: group.dashboard_link)
        at, cookie = urlsplit(link), await sync(welcome, link)
        line = await trio.open_tcp_stream(str(at.hostname), int(at.port or 0))
        fields = ("Upgrade: websocket", "Connection: Upgrade", f"Cookie: {cookie}")
        head = (f"GET /ws HTTP/1.1\r\nHost: {at.netloc}", *fields, "", "first")
        async with line:
            await line.send_all("\r\n".join(head).encode())
            said = b""
            with trio.fail_after(SOON):
                while not said.endswith(b"first"):
                    said += await line.receive_some()
                await line.send_all(b"second")
                while not said.endswith(b"second"):
                    said += await line.receive_some()
        assert said.startswith(b"HTTP/1.1 101 ")
        with trio.fail_after(SOON):
            await pages[-1].closed.wait()


async def test_without_a_page_the_link_says_so(tmp_path: Path) -> None:
    """Shows: E2."""
    api = MemoryControl(engines={"A": "dask"})
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        group = await sync(aemesh.connect, "A", state=tmp_path)
        with pytest.raises(EngineError, match="no page"):
            await sync(lambda: group.dashboard_link)
        await sync(group.close)
        nursery.cancel_scope.cancel()


async def test_whoever_only_connects_holds_no_place_for_long_and_no_more_than_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows: E2."""
    monkeypatch.setattr(page_module, "_HEAD_AFTER", 0.2)
    monkeypatch.setattr(page_module, "_CONNECTIONS", 2)
    async with shown(tmp_path) as (group, _):
        link = await sync(lambda: group.dashboard_link)
        at = urlsplit(link)

        def connect(said: bytes) -> socket.socket:
            address = str(at.hostname), int(at.port or 0)
            line = socket.create_connection(address, timeout=SOON)
            line.sendall(said)
            return line

        silent = [await sync(connect, b"GET") for _ in range(2)]
        for line in silent:
            assert await sync(line.recv, 1) == b""
            line.close()

        def drip() -> None:
            with suppress(OSError), connect(b"GET /") as line:
                line.settimeout(0.02)
                while True:
                    line.send(b"a")
                    with suppress(TimeoutError):
                        if not line.recv(1):
                            return  # it was hung up on

        with trio.fail_after(SOON):
            await sync(drip)
        line = await sync(connect, b"GET /" + b"a" * 2 * HEAD_BYTES)
        with line, suppress(ConnectionResetError):  # it hung up with bytes unread
            assert await sync(line.recv, 1) == b""
        status, _, _ = await sync(get, link, "/status")
        assert status == 403


async def test_when_the_group_is_closed_nothing_listens_any_more(
    tmp_path: Path,
) -> None:
    """Shows: E2."""
    async with shown(tmp_path) as (group, _):
        link = await sync(lambda: group.dashboard_link)
        await sync(group.close)
        with pytest.raises(ConnectionRefusedError):
            await sync(get, link, "/status")
