"""Running a user's script: signals are passed on, and so is the exit code."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import UsageError
from aemesh.host.warden import INTERRUPT, TERMINATE, events_fd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_TYPED = (signal.SIGINT, signal.SIGQUIT)
_TOLD = {INTERRUPT: signal.SIGINT, TERMINATE: signal.SIGTERM}


def run_script(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run `argv` to its end; return its exit code, 128 + n if signal n ended it.

    It has our terminal and our process group.  So what is typed there (Ctrl-C)
    reaches it by itself, and we wait until it has dealt with it; what is sent to
    us alone is passed on.  Below a warden (see `host.warden`) what is sent to that is
    passed on too, and the script is killed when the warden was.
    """
    return see_through(argv, env).code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script ended."""

    code: int  # 128 + n if signal n ended it
    interrupted: bool  # somebody pressed Ctrl-C meanwhile


def see_through(
    argv: Sequence[str], env: Mapping[str, str], *, end: int | None = None
) -> Ended:
    """Run `argv` as `run_script` does, and tell more of its end.

    It is asked to end when the descriptor `end` can be read, and killed if it does
    not within `limits.TERM_AFTER`.
    """
    with _passing_on() as script:
        code = script.run(argv, env, end)
    return Ended(code if code >= 0 else 128 - code, script.interrupted)


class _Script:
    """The child, once it runs, and the signals that came before."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self.interrupted = False

    def run(self, argv: Sequence[str], env: Mapping[str, str], end: int | None) -> int:
        try:
            self._child = subprocess.Popen(list(argv), env=dict(env))  # noqa: S603 - it is what the user asks for
        except OSError as error:
            msg = f"{argv[0]} cannot be started"
            raise UsageError(msg, why=error.strerror) from error
        for number in self._early:
            self._child.send_signal(number)
        events = events_fd()
        if events is not None or end is not None:
            self._obey(events, end, self._child)
        return self._child.wait()

    def _obey(
        self, events: int | None, end: int | None, child: subprocess.Popen[bytes]
    ) -> None:
        """Do as the warden says, and end it when that is due, until it has ended."""
        ended = os.pidfd_open(child.pid)
        waits = {fd for fd in (ended, events, end) if fd is not None}
        patience: float | None = None
        try:
            while ended not in (ready := select.select(waits, [], [], patience)[0]):
                if not ready:
                    child.kill()
                    patience = None
                elif end is not None and end in ready:
                    waits.discard(end)
                    child.terminate()
                    patience = limits.TERM_AFTER
                elif self._is_killed(os.read(ready[0], 1), child):
                    return
        finally:
            os.close(ended)

    def _is_killed(self, byte: bytes, child: subprocess.Popen[bytes]) -> bool:
        """Pass the warden's word on; return whether it was its last."""
        number = _TOLD.get(byte, signal.SIGKILL)
        self.interrupted |= byte == INTERRUPT
        if number not in _TYPED or not _in_foreground():
            child.send_signal(number)
        return byte not in _TOLD

    def receive(self, number: int, _frame: FrameType | None) -> None:
        self.interrupted |= number == signal.SIGINT
        if number in _TYPED and _in_foreground():
            return
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


def _in_foreground() -> bool:
    """Whether what is typed at the terminal reaches our process group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _passing_on() -> Iterator[_Script]:
    script = _Script()
    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # `nohup` stays `nohup`
                signal.signal(number, script.receive)
        yield script
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
