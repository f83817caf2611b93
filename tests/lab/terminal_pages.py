"""A page's terminal blocks, typed on the terminals of hosts that are in the lab.

A ``console`` block counts if a comment stands just above it:

    <!-- lab -->                     each line ``HOST$ command`` is typed on that host
    <!-- lab office-1 -->            goes on at what still runs on that host
    <!-- lab laptop: aemesh master -->        the same, where two things run

``HOST# command`` is typed by root.  A line ``> more`` under a command is typed with it.
The other lines are what is said there, in this order; lines that the page leaves out
may come between.  What a person types at a question ends its line (`[y/N] y`), and
``^C`` at the start of a line is pressed.  Which text may differ: `page_shapes`.

A host has a terminal until something stays running on it; the next command for this
host then opens another one, as a person would.  Every host has the same USB stick in
``/media/stick``.  A command that fails is one whose page shows ``aemesh: error: …``.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import trio

from aemesh.testing.lab import LabError, wait_for
from tests.lab.office import ENDED_WITHIN, ON_TERMINAL, Terminal, gone, open_office
from tests.lab.page_shapes import Bindings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from aemesh.testing.lab import Host
    from tests.lab.office import Office

    # What is in the environment of the shells of each host.
    Surroundings = Mapping[str, Mapping[str, str]]
    Prepare = Callable[[Office], AbstractAsyncContextManager[Surroundings]]

# A start of Python, a question to a network, and all this on a busy machine.
SAID_WITHIN = 60.0
# What is told to end has ended by then.
GONE_WITHIN = 10.0
# What a page may show; the widest table has 170 columns.
_SIZE = struct.pack("HHHH", 50, 240, 0, 0)

_BLOCK = re.compile(
    r"^<!-- lab ?(?P<where>[^\n>]*?) *-->\n```console\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_TYPED = re.compile(r"(?P<host>[a-z0-9][a-z0-9-]*)(?P<sign>[$#]) (?P<command>.+)")
_ASKED = re.compile(
    r"(?P<shown>.*(?:\[y/N\]|[Pp]ass(?:word|phrase)\b.*:|^Once more:) )(?P<answer>.+)"
)
_REPEATED = re.compile(r"\^C|.*\[y/N\] (?=.)")
# These run until somebody ends them.
_STAYS = re.compile(
    r"\baemesh (?:worker|master)\b|\baemesh events .*--follow|\bkrb5kdc -n"
)
# What colours, bold letters and titles are made of; and where a prompt begins, with
# the exit code of the command before it (as terminals know it: OSC 133).
_PROMPT = re.compile(r"\x1b\]133;D;(\d+)\x07")
_CONTROL = re.compile(r"\x1b\][^\x07]*\x07|\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of what a page shows."""

    number: int
    text: str


@dataclass(slots=True)
class Step:
    """What one person does at one terminal: a command and what follows it."""

    host: str
    number: int
    root: bool = False
    typed: list[str] = field(default_factory=list)  # empty: it goes on there
    running: str = ""  # what it goes on with
    lines: list[Line] = field(default_factory=list)

    @property
    def stays(self) -> bool:
        """Whether the command runs until somebody ends it."""
        if self.fails or any(line.text.startswith("^C") for line in self.lines):
            return False
        if not self.typed:
            return True
        typed = "\n".join(self.typed)
        return not typed.endswith("&") and _STAYS.search(typed) is not None

    @property
    def fails(self) -> bool:
        """Whether the page shows that it fails."""
        return any(line.text.startswith("aemesh: error:") for line in self.lines)


class PageError(AssertionError):
    """A page shows what is not so."""


def read_steps(text: str) -> list[Step]:
    """Return what the marked blocks of a page do, in their order."""
    found = []
    for block in _BLOCK.finditer(text):
        first = text[: block.start("text")].count("\n") + 1
        found += list(_steps_of(block["where"], block["text"], first))
    return found


def _steps_of(where: str, text: str, first: int) -> Iterator[Step]:
    host, _, running = where.partition(":")
    step = Step(host, first, running=running.strip()) if host else None
    for number, line in enumerate(text.splitlines(), start=first):
        typed = _TYPED.fullmatch(line)
        if typed is not None:
            if step is not None and (step.lines or step.typed):
                yield step
            step = Step(typed["host"], number, root=typed["sign"] == "#")
            step.typed.append(typed["command"])
        elif step is None:
            msg = f"line {number}: whose terminal is this? `<!-- lab HOST -->` tells"
            raise PageError(msg)
        elif line.startswith("> ") and step.typed and not step.lines:
            step.typed.append(line[2:])
        elif line and line != "…":
            step.lines.append(Line(number, line))
    if step is not None:
        yield step


@dataclass(slots=True)
class Window:
    """A terminal with a shell on a host."""

    host: Host
    root: bool
    process: trio.Process
    screen: Terminal
    running: str = ""
    at: int = 0  # all before it was compared with the page
    prompts: int = 0  # how many there have been when the last command was typed
    stays_since: int = 0  # the line of what is to run until somebody ends it

    @property
    def codes(self) -> list[int]:
        """The exit code of each command so far; the first is the shell's start."""
        return [int(code) for code in _PROMPT.findall(self.screen.text)]

    @property
    def is_idle(self) -> bool:
        """Whether the shell waits for a command."""
        return len(self.codes) > self.prompts

    @property
    def said(self) -> str:
        """What was said there since what the page was last held to."""
        return _CONTROL.sub("", self.screen.text[self.at :])

    async def wait_idle(self, within: float) -> int:
        """Wait for the prompt; return the exit code of what ended."""
        what = f"a prompt on {self.host.name}"
        await wait_for(lambda: self.is_idle, within=within, what=what)
        return self.codes[-1]

    async def enter(self, lines: list[str]) -> None:
        """Type a command, and wait until it stands there."""
        self.prompts = len(self.codes)
        self.at = len(self.screen.text)
        await self.screen.type("".join(f"{line}\n" for line in lines))

        def echoed() -> bool:
            return self.screen.text[self.at :].count("\n") >= len(lines)

        await wait_for(echoed, within=SAID_WITHIN, what="an echo of what was typed")
        for _ in lines:
            self.at = self.screen.text.index("\n", self.at) + 1


class Typist:
    """Does what a page says, on the hosts of an office."""

    def __init__(self, page: Path, office: Office, around: Surroundings) -> None:
        self._page = page
        self._office = office
        self._around = around
        self._windows: list[Window] = []
        self._bindings = Bindings()

    async def do(self, step: Step) -> None:
        """Type one command, or go on where one runs, and hold the page to its words."""
        window = await self._window(step)
        if step.typed:
            typed = [self._bindings.put_in(line) for line in step.typed]
            await window.enter(typed)
            window.running = typed[0]
        for line in step.lines:
            await self._hear(window, line)
        window.stays_since = step.number if step.stays else 0
        if not step.stays:
            await self._wait_end(window, step)

    async def leave(self) -> None:
        """Press Ctrl-C where something runs, and leave the shells."""
        for window in self._windows:
            self._check_stays(window)
            if not window.is_idle:
                await window.screen.type("\x03")
            try:
                await window.wait_idle(ENDED_WITHIN)
            except LabError:
                raise self._error(0, window, "it goes on after Ctrl-C") from None
            await window.screen.type("exit\n")
            await window.process.wait()

    async def check_ended(self) -> None:
        """Look what is left on the hosts; nothing should be."""
        for host in self._office.lab:
            with suppress(LabError):
                await wait_for(gone(host), within=GONE_WITHIN, what="an end of all")
            left = [*_commands(host), *await host.listeners()]
            if left:
                msg = f"{self._page.name}: {left} is left on {host.name}"
                raise PageError(msg)

    def _check_stays(self, window: Window) -> None:
        if window.stays_since and window.is_idle:
            raise self._error(window.stays_since, window, "it ended by itself")

    async def _wait_end(self, window: Window, step: Step) -> None:
        try:
            code = await window.wait_idle(SAID_WITHIN)
        except LabError:
            raise self._error(step.number, window, "it does not end") from None
        if step.typed and (code != 0) is not step.fails:
            raise self._error(step.number, window, f"it ended with {code}")

    async def _hear(self, window: Window, line: Line) -> None:
        text = line.text
        if text.startswith("^C"):
            await window.screen.type("\x03")
            text = text[2:]
            if not text:
                return
        asked = _ASKED.fullmatch(text)
        shown = text if asked is None else asked["shown"]

        def look() -> str:
            # First: all that was said before the prompt is there once the prompt is.
            ended = window.is_idle
            if self._meet(window, shown, asked=asked is not None):
                return "met"
            return "ended" if ended else ""

        try:
            found = await wait_for(look, within=SAID_WITHIN, what=f"said {shown!r}")
        except LabError:
            found = "silent"
        if found != "met":
            raise self._error(line.number, window, f"{shown!r} was not said")
        if asked is not None:
            await window.screen.type(asked["answer"] + "\n")

    def _meet(self, window: Window, shown: str, *, asked: bool) -> bool:
        """Whether this was said; if so, what comes next is looked for behind it."""
        text = window.screen.text
        end = window.at
        while end < len(text):
            start, end = end, text.find("\n", end) + 1 or len(text)
            whole = text[start:end]
            # A question is the last thing that was said, and no line ends behind it.
            if asked is whole.endswith("\n"):
                continue
            said = _CONTROL.sub("", whole.rstrip("\n"))
            # News that comes just behind an answer stands behind the question, which
            # was said once more.
            rest = _REPEATED.sub("", said)
            if any(self._bindings.meet(shown, one) for one in (said, rest)):
                window.at = end
                return True
        return False

    async def _window(self, step: Step) -> Window:
        here = [one for one in self._windows if one.host.name == step.host]
        for one in here:
            self._check_stays(one)
        if not step.typed:
            found = [
                one
                for one in here
                if not one.is_idle and one.running.startswith(step.running)
            ]
            if len(found) != 1:
                msg = f"{self._page.name}:{step.number}: {len(found)} things run there"
                raise PageError(msg)
            return found[0]
        for one in here:
            if one.is_idle and one.root is step.root:
                return one
        return await self._open(self._office.host(step.host), root=step.root)

    async def _open(self, host: Host, *, root: bool) -> Window:
        """Open a terminal with a shell, as a desktop does."""
        screen = Terminal()
        fcntl.ioctl(screen.theirs, termios.TIOCSWINSZ, _SIZE)
        sign = "#" if root else "\\$"
        path = f"{host.home}/.local/bin:{host.environment()['PATH']}"
        env = {
            "PATH": path,
            "TERM": "xterm",
            "PS2": "",
            "PS1": f"\x1b]133;D;$?\x07{host.name}{sign} ",
            **self._around.get(host.name, {}),
        }
        argv = [host.python, "-c", ON_TERMINAL, "/bin/sh", "-i"]
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), screen.theirs)
        process = await host.start(argv, root=root, env=env, **ends)
        os.close(screen.theirs)
        self._office.crew.start_soon(screen.run)
        window = Window(host, root, process, screen)
        await window.wait_idle(SAID_WITHIN)
        self._windows.append(window)
        return window

    def _error(self, number: int, window: Window, what: str) -> PageError:
        where = f"{self._page.name}:{number}" if number else self._page.name
        return PageError(
            f"{where}: {what}\non {window.host.name}, `{window.running}` said:\n"
            f"{window.said[-3000:]}\n({self._bindings!r})"
        )


@asynccontextmanager
async def _nothing(office: Office) -> AsyncIterator[Surroundings]:
    del office
    yield {}


async def type_page(page: Path, prepare: Prepare = _nothing) -> None:
    """Do all that a page says, from the start of its hosts to the end of all.

    ``prepare`` furnishes the hosts as long as its block lasts, with what the page takes
    for granted: a KDC, say.  Raises PageError, which names page and line and what was
    said.
    """
    steps = read_steps(page.read_text())
    hosts = dict.fromkeys(step.host for step in steps)
    names = sorted(hosts, key=lambda name: name != "laptop")
    async with open_office(names) as office:
        for host in office.lab:
            await _install(host)
        async with prepare(office) as around:
            typist = Typist(page, office, around)
            for step in steps:
                await typist.do(step)
            await typist.leave()
        await typist.check_ended()


def _commands(host: Host) -> list[str]:
    """Return the command lines of what runs on a host."""
    found = []
    for pid in sorted(host.processes()):
        with suppress(psutil.Error):
            found.append(" ".join(psutil.Process(pid).cmdline()))
    return found


async def _install(host: Host) -> None:
    """Put `aemesh` where the shell finds it.

    The one beside the interpreter begins with its path on this machine.
    """
    words = " ".join(host.aemesh)
    script = (
        f"mkdir -p ~/.local/bin && cd ~/.local/bin && chmod 700 ~/.local && "
        f"printf '#!/bin/sh\\nexec {words} \"$@\"\\n' > aemesh && chmod 755 aemesh"
    )
    await host.run(["sh", "-c", script])
