"""Imports the modules that a group named, so that its workers are forked with them.

An import is a program of somebody else's: it may raise, exit, crash or hang. So a
child tries it first, and what a child does not survive is left out and told. That
costs each import twice, in a process that waits anyway. One that starts a thread is
left out, too: a fork has the locks of that thread, and nobody who gives them back.

It knows neither Dask nor aemesh; `dask_node.py` asks it before it forks a worker.
"""
# What an import raises is anything: it is told, and the group works without.
# ruff: noqa: BLE001

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Large ones take some seconds from a cold disk; beyond this it hangs.
IMPORT_WITHIN = 20.0
_IMPORTED, _RAISED = b".", b"!"
_REASON_LENGTH = 300


def preload(modules: Iterable[str], *, within: float = IMPORT_WITHIN) -> dict[str, str]:
    """Import modules that are not there yet; return why some are not, by name."""
    unimported: dict[str, str] = {}
    waiting = [name for name in modules if name not in sys.modules]
    while waiting:
        count, why = _try(waiting, within=within)
        for name in waiting[:count]:
            try:
                importlib.import_module(name)
            except Exception as error:  # here, and not in a child
                unimported[name] = _reason(error)
        if count < len(waiting):
            unimported[waiting[count]] = why
        waiting = waiting[count + 1 :]
    return unimported


def _try(modules: Sequence[str], *, within: float) -> tuple[int, str]:
    """Let a child import these in order; return how many it could, and why no more."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _import_in_child(modules, writing)
    os.close(writing)
    try:
        return _listen(reading, within=within)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # not waited for yet: the number is its own
        os.waitpid(pid, 0)


def _listen(reading: int, *, within: float) -> tuple[int, str]:
    said, until = b"", time.monotonic() + within
    while True:
        ready, _, _ = select.select(
            [reading], [], [], max(0.0, until - time.monotonic())
        )
        piece = os.read(reading, 4096) if ready else b""
        good, raised, why = (said + piece).partition(_RAISED)
        if ready and piece:
            said += piece
            until = time.monotonic() + within
            continue
        if raised:
            return len(good), why.decode(errors="replace")
        if ready:
            return len(good), "its import ended the process"
        return len(good), f"its import takes longer than {within:g} s"


def _import_in_child(modules: Sequence[str], writing: int) -> NoReturn:
    """Import, and tell how it goes; never returns into what was forked."""
    with contextlib.suppress(BaseException):
        for name in modules:
            try:
                _import(name)
            except BaseException as error:
                os.write(writing, _RAISED + _reason(error).encode())
                break
            os.write(writing, _IMPORTED)
    os._exit(0)


def _import(name: str) -> None:
    importlib.import_module(name)
    if threading.active_count() > 1:
        msg = "a worker that is forked with the thread that it starts would hang"
        raise RuntimeError(msg)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_REASON_LENGTH]
