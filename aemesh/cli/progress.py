"""That something goes on, and how far it is: a spinner or a bar on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from aemesh.cli import ui

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

# A terminal's line is empty, and its cursor is there (ECMA-48, and DEC's).
_CLEARED = b"\r\x1b[2K\x1b[?25h"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that something goes on: a spinner on a terminal, else one plain line."""
    if not sys.stderr.isatty():
        ui.say(f"{text} …")
        yield
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with (
        _cleared_at_end(),
        Console(stderr=True, highlight=False).status(Text(text)),
    ):
        yield


@contextmanager
def _cleared_at_end() -> Iterator[None]:
    """Give the terminal its cursor back, which rich hides, if a signal ends us."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread have a handler
        return

    def end(number: int, _frame: object) -> None:
        # As bytes: what Python holds for the stream may be in the middle of a write.
        os.write(sys.stderr.fileno(), _CLEARED)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    mortal = [one for one in _ENDING if signal.getsignal(one) is signal.SIG_DFL]
    for number in mortal:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mortal:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


class Counting:
    """How many of `total` are done: a bar on a terminal, else nothing."""

    def __init__(self, text: str, total: int) -> None:
        self._bar: Progress | None = None
        self._ending = ExitStack()
        if not sys.stderr.isatty():
            return
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
            # Data is not to pass through it; `hidden` is for that.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(text, total=total, words="")

    def show(self, done: int, words: str) -> None:
        """Show how many are done, and words beside."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, words=words)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take it away while something else is printed."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._ending.enter_context(_cleared_at_end())
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._ending.close()
