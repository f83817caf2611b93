"""HTTP over the control socket, with the standard library.

A command line pays for every import at each call: httpx costs 0.17 s of CPU
time here, `http.client` 0.02 s, and neither TLS, proxies nor pools are wanted on
a unix socket.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from aemesh.errors import (
    AemeshError,
    BugError,
    NoMasterError,
    NotBegunError,
    SettingsError,
    UnreachableError,
    UsageError,
    quoted,
    same_error,
)
from aemesh.host.control.sockets import ErrorBody, connected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

_T = TypeVar("_T")

# The master answers within its own bounds (the longest: an engine that opens,
# then a first member); this is only for one that hangs.
ANSWER_AFTER = 180.0
# What the kernel keeps for a unix socket is not much more.
_PIECE_BYTES = 64 * 1024
# We have as many open files as we may, or the machine has.
_NO_ROOM_HERE = frozenset({errno.EMFILE, errno.ENFILE})


class Transport:
    """Requests to the node whose control socket is at `path`, one connection each.

    `absent` makes the error for when nothing listens there.
    """

    def __init__(
        self, path: Path, *, absent: Callable[[str], AemeshError] = NoMasterError
    ) -> None:
        self.path = path
        self._absent = absent

    def ask(
        self,
        method: str,
        target: str,
        *,
        body: object = None,
        answer: type[_T],
        within: float | None = ANSWER_AFTER,
    ) -> _T:
        """Send one request and return its answer, or raise the master's error.

        `within` is in seconds; None is for what the master may take any time for.
        """
        with closing(self._connect(within)) as connection:
            response = self._send(connection, method, target, body)
            try:
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error
        if response.status >= 400:
            raise _error_of(content)
        return _decoded(content or b"{}", answer)

    def lines(
        self, method: str, target: str, *, body: object = None
    ) -> Generator[bytes, None, None]:
        """Send one request and yield the answer's lines as they come."""
        with closing(self._connect(None)) as connection:
            response = self._send(connection, method, target, body)
            if response.status >= 400:
                raise _error_of(response.read())
            rest: list[bytes] = []
            while piece := self._piece(response):
                *lines, last = piece.split(b"\n")
                for line in lines:
                    yield b"".join((*rest, line, b"\n"))
                    rest.clear()
                rest.append(last)
            if any(rest):
                raise self._broken(EOFError("half a line"))

    def talk(self, method: str, target: str, first: bytes) -> Talk:
        """Begin a request whose body goes on while its answer comes.

        `first` is sent at once, and with nothing the body ends there; returns when the
        master begins to answer, or raises its error.
        """
        connection = self._connect(None)
        try:
            connection.putrequest(method, target)
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            line: socket.socket = connection.sock
            line.sendall(_chunk(first))
            response = connection.getresponse()
            refusal = response.read() if response.status >= 400 else None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._broken(error) from error
        if refusal is not None:
            connection.close()
            raise _error_of(refusal)
        return Talk(line, response, self._broken)

    def pieces(
        self, method: str, target: str, *, body: object = None
    ) -> Generator[bytes, None, None]:
        """Send one request and yield the answer's bytes as they come."""
        with closing(self._connect(ANSWER_AFTER)) as connection:
            response = self._send(connection, method, target, body)
            if response.status >= 400:
                raise _error_of(response.read())
            while piece := self._piece(response):
                yield piece

    def _piece(self, response: http.client.HTTPResponse) -> bytes:
        """Return what comes next; empty at the end that the master meant."""
        # Not `readline`: it takes a connection that broke for an answer that ended.
        try:
            return response.read1(_PIECE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _connect(self, timeout_after: float | None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = connected(self.path, timeout_after)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise self._absent(str(self.path.parent.parent.parent)) from None
        except PermissionError as error:
            msg = f"{self.path} is not ours to use"
            raise SettingsError(msg, why=error.strerror) from error
        except OSError as error:
            if error.errno in _NO_ROOM_HERE:
                msg = "no connection to the master can be made"
                hint = "raise the limit: `ulimit -n`"
                raise NotBegunError(msg, why=error.strerror, hint=hint) from error
            raise self._broken(error) from error
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: object,
    ) -> http.client.HTTPResponse:
        """Send a request; a body that is not bytes goes as JSON."""
        plain = body is None or isinstance(body, bytes)
        content: Any = body if plain else encoded(body)
        try:
            connection.request(method, target, content)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> UnreachableError:
        if isinstance(error, TimeoutError):
            why = f"no answer in {ANSWER_AFTER:g} s"
        elif isinstance(error, http.client.IncompleteRead):
            why = "its answer broke off"
        else:
            why = str(error) or type(error).__name__
        return UnreachableError("the master hung up", why=why)


class Talk:
    """A request that is still being said, and an answer that still comes.

    One thread may write while another reads.
    """

    def __init__(
        self,
        line: socket.socket,
        response: http.client.HTTPResponse,
        broken: Callable[[Exception], AemeshError],
    ) -> None:
        self._line = line
        self._response = response
        self._broken = broken

    def write(self, data: bytes) -> None:
        """Say more; raises `OSError` once the other end is closed."""
        self._line.sendall(_chunk(data))

    def read(self, most: int) -> bytes:
        """Return what comes next, at most so much; empty at the end that was meant."""
        try:
            return self._response.read1(most)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        except (ValueError, AttributeError) as error:  # closed by another thread
            raise self._broken(EOFError("it was hung up")) from error

    def hang_up(self) -> None:
        """End both directions; who waits in one of them is told."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        self._response.close()  # it holds the socket, too


def encoded(body: object) -> bytes:
    """Return a request's body as JSON; raises `UsageError` if it cannot be said."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        msg = f"a word is no UTF-8: {quoted(str(error.object))}"
        raise UsageError(msg, why="it cannot be said to the master") from None


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def in_line(line: bytes, kind: type[_T], *, whose: str = "master") -> _T:
    """Return the value in a line of a stream, or raise the error that is in it."""
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        told = error_in(line)
        if told is not None:
            raise told from None
        msg = f"the {whose}'s answer cannot be read"
        raise UnreachableError(msg, why=str(error)) from error


def error_in(line: bytes) -> AemeshError | None:
    """Return the error that a line of a stream holds, or None if it is data."""
    try:
        told = msgspec.json.decode(line, type=ErrorBody)
    except msgspec.MsgspecError:
        return None
    return _same_error(told)


def error_of(fields: Mapping[str, object]) -> AemeshError:
    """Return the error that was told as these fields."""
    return _same_error(msgspec.convert(dict(fields), ErrorBody))


def _error_of(content: bytes) -> AemeshError:
    told = error_in(content)
    if told is not None:
        return told
    shown = content[:80].decode(errors="replace")
    return BugError("the master's answer cannot be read", why=json.dumps(shown))


def _same_error(told: ErrorBody) -> AemeshError:
    return same_error(told.error, told.what, why=told.why, hint=told.hint)


def _decoded(content: bytes, answer: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.MsgspecError as error:
        msg = "the master's answer cannot be read"
        raise BugError(
            msg, why=str(error), hint="is it of another version than this command?"
        ) from error
