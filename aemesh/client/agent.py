"""How a job asks its agent: the other end of `aemesh.host.jobsocket`.

It runs in the job's own process, whatever that is, so it imports the standard library
and nothing else that costs time.  Each process has one connection, and threads take
turns on it.  An agent that ends takes its jobs with it, so nothing here tries again.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

from aemesh.errors import SettingsError, UnreachableError, same_error
from aemesh.host.control.shortpath import short_path

VARIABLE = "AEMESH_JOB_SOCKET"
_LENGTH = 4


class Agent:
    """The agent of the job that this process belongs to."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._turn = threading.Lock()
        self._socket: socket.socket | None = None

    def ask(
        self, question: dict[str, object], *blobs: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return the words and the bytes of the answer, or raise the error that it is.

        Raises `UnreachableError` when the agent is gone.
        """
        words = json.dumps(question).encode()
        length = _LENGTH + len(words) + sum(map(len, blobs))
        head = length.to_bytes(_LENGTH, "big") + len(words).to_bytes(_LENGTH, "big")
        with self._turn:
            try:
                line = self._line()
                line.sendall(head + words)
                for blob in blobs:
                    line.sendall(blob)
                answer = self._read(line, self._number(line))
            except BaseException as error:
                # Also when a signal cut in: the answer would be taken for the next one.
                self._hang_up()
                if not isinstance(error, OSError):
                    raise
                msg = "the agent of this job does not answer"
                raise UnreachableError(msg, why=str(error)) from error
        end = _LENGTH + int.from_bytes(answer[:_LENGTH], "big")
        told = json.loads(answer[_LENGTH:end])
        if told["t"] == "refused":
            raise same_error(
                told["error"], told["what"], why=told["why"], hint=told["hint"]
            )
        return told, answer[end:]

    def _line(self) -> socket.socket:
        if self._socket is None:
            line = socket.socket(socket.AF_UNIX)
            try:
                with short_path(self._path) as short:
                    line.connect(short)
            except BaseException:
                line.close()
                raise
            self._socket = line
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _number(self, line: socket.socket) -> int:
        return int.from_bytes(self._read(line, _LENGTH), "big")

    @staticmethod
    def _read(line: socket.socket, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = line.recv_into(view)
            if not count:
                msg = "it hung up"
                raise OSError(msg)
            view = view[count:]
        return bytes(data)

    def __repr__(self) -> str:
        return f"<Agent at {self._path}>"


_agent: Agent | None = None


def this_agent() -> Agent:
    """Return the agent of this job; raises `SettingsError` outside of one."""
    global _agent  # noqa: PLW0603 - a process is of one job, for good
    if _agent is None:
        path = os.environ.get(VARIABLE)
        if not path:
            msg = "this is no job of aemesh"
            raise SettingsError(msg, why=f"${VARIABLE} is not set")
        _agent = Agent(path)
    return _agent


def _forget() -> None:
    """A fork has its own, and no lock that a thread of its parent holds."""
    global _agent  # noqa: PLW0603 - as above
    _agent = None


os.register_at_fork(after_in_child=_forget)
