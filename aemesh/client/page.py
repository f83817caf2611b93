"""An engine's web page on a port of this machine, for whoever has its link.

Each request that the door lets through (`pagedoor`) becomes a connection to the engine,
by the master's control socket; the engine itself listens nowhere.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from aemesh.client.pagedoor import HEAD_BYTES, Answer, Door, Pass, failure
from aemesh.errors import AemeshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.client.transport import Talk

# Connections at one time, each with two threads: a browser has six, and one more for
# each live figure.  More are hung up on.
_CONNECTIONS = 48
# A browser says its request at once; who only connects holds a place no longer.
_HEAD_AFTER = 10.0
# What could not be accepted is still there: it is not tried without end.
_BREATH_AFTER = 0.1
_PIECE_BYTES = 64 * 1024
_SECRET_BYTES = 32


class LoopbackPage:
    """A port on loopback that leads to a page; open until `close`.

    `open_talk` opens a connection to the page, and says the bytes that it is given.
    """

    def __init__(self, open_talk: Callable[[bytes], Talk]) -> None:
        self._open_talk = open_talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._door = Door(
            port=self._listener.getsockname()[1],
            token=secrets.token_urlsafe(_SECRET_BYTES),
            cookie=secrets.token_urlsafe(_SECRET_BYTES),
        )
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        self._lines: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._serve, name="aemesh page", daemon=True).start()

    def __repr__(self) -> str:
        return f"<LoopbackPage at port {self._door.port}>"

    @property
    def link(self) -> str:
        """The link, with its secret."""
        return self._door.link

    def close(self) -> None:
        """Listen no longer, and end all connections."""
        with self._lock:
            self._closed.set()
            lines = [self._listener, *self._lines]
        for line in lines:
            _hang_up(line)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                # It is closed, or there are no file descriptors left, perhaps.
                if self._closed.wait(_BREATH_AFTER):
                    return
                continue
            if not self._places.acquire(blocking=False):
                line.close()
                continue
            threading.Thread(target=self._attend, args=(line,), daemon=True).start()

    def _attend(self, line: socket.socket) -> None:
        with self._lock:
            self._lines.add(line)
        try:
            with line, suppress(OSError):
                if not self._closed.is_set():
                    self._answer(line)
        finally:
            with self._lock:
                self._lines.discard(line)
            self._places.release()

    def _answer(self, line: socket.socket) -> None:
        head, rest = _read_head(line)
        if not head:
            return
        verdict = self._door.judge_untrusted(head)
        if isinstance(verdict, Answer):
            line.sendall(verdict.data)
            return
        try:
            talk = self._open_talk(verdict.head)
        except AemeshError as error:
            why = f": {error.why}" if error.why else ""
            line.sendall(failure(f"{error.what}{why}"))
            return
        line.settimeout(None)
        try:
            self._carry(line, talk, verdict, rest)
        finally:
            talk.hang_up()

    def _carry(
        self, line: socket.socket, talk: Talk, verdict: Pass, rest: bytes
    ) -> None:
        """Pass the answer on; what the client still says only on a websocket."""

        def listen() -> None:
            said = rest
            with suppress(OSError):
                while said or (said := line.recv(_PIECE_BYTES)):
                    if verdict.both_ways:
                        talk.write(said)
                    said = b""
            talk.hang_up()  # it has closed the page

        threading.Thread(target=listen, daemon=True).start()
        with suppress(AemeshError):
            while data := talk.read(_PIECE_BYTES):
                line.sendall(data)
        _hang_up(line)


def _read_head(line: socket.socket) -> tuple[bytes, bytes]:
    """Return a request's head and what came behind it; nothing if it has none."""
    said, until = b"", time.monotonic() + _HEAD_AFTER
    while b"\r\n\r\n" not in said:
        left = until - time.monotonic()  # for all of it, also from one who drips
        if left <= 0:
            return b"", b""
        line.settimeout(left)
        piece = line.recv(_PIECE_BYTES)
        if not piece or len(said) > HEAD_BYTES:
            return b"", b""
        said += piece
    head, end, rest = said.partition(b"\r\n\r\n")
    return head + end, rest


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
