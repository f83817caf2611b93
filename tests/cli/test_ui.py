"""Questions on a real terminal (a pseudo-terminal), and text that cannot steer one."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from typing import Self

import pytest
import trio

from aemesh.cli import ui
from aemesh.cli.progress import Counting

# The child makes the pseudo-terminal its own, as a shell's child has it.
_HEAD = """
import fcntl, select, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
import trio
from aemesh.cli import ui
from aemesh.cli.progress import Counting, progress
"""


class Terminal:
    """A child on a pseudo-terminal, and what it has shown so far."""

    def __init__(self, code: str) -> None:
        self.fd, theirs = pty.openpty()
        self.shown = ""
        self.child = subprocess.Popen(
            [sys.executable, "-c", _HEAD + code],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    async def shows(self, text: str) -> str:
        """Wait until `text` has been shown; return what came before it."""
        with trio.fail_after(10):
            while text not in self.shown:
                await trio.lowlevel.wait_readable(self.fd)
                self.shown += os.read(self.fd, 4096).decode()
        before, self.shown = self.shown.split(text, 1)
        return before

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.fd)


ASK = "print('answer', trio.run(ui.ask, 'trust it?'))"


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("yo\n", False),
     ("\x04", False)],
)  # fmt: skip
async def test_only_yes_is_yes(typed: str, answer: bool):
    with Terminal(ASK) as terminal:
        await terminal.shows("trust it? [y/N] ")
        terminal.type(typed)
        await terminal.shows("answer ")

        assert await terminal.shows("\n") == f"{answer}\r"


async def test_what_was_typed_before_the_question_is_no_answer():
    # By the time of the question a "y" is there to be read.
    code = "print('wait', flush=True); input(); select.select([0], [], [])\n" + ASK
    with Terminal(code) as terminal:
        await terminal.shows("wait")
        terminal.type("go\ny\n")
        await terminal.shows("trust it? [y/N] ")
        terminal.type("n\n")
        await terminal.shows("answer ")

        assert await terminal.shows("\n") == "False\r"


async def test_a_question_can_be_cancelled_and_the_next_one_asked():
    code = """
async def main():
    with trio.move_on_after(0.05) as scope:
        await ui.ask("first?")
    print("cancelled", scope.cancelled_caught, flush=True)
    print("answer", await ui.ask("second?"))
trio.run(main)
"""
    with Terminal(code) as terminal:
        assert await terminal.shows("first? [y/N] ") == ""
        assert await terminal.shows("cancelled True") == "\r\n"
        assert await terminal.shows("second? [y/N] ") == "\r\n"
        terminal.type("y\n")
        assert await terminal.shows("answer True") == "y\r\n"


async def test_two_questions_come_one_after_the_other():
    code = """
async def one(name: str):
    print(name, await ui.ask(name), flush=True)
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "alpha")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, "beta")
import trio.testing
trio.run(main)
"""
    with Terminal(code) as terminal:
        await terminal.shows("alpha [y/N] ")
        assert "beta" not in terminal.shown
        terminal.type("y\n")
        await terminal.shows("alpha True")
        await terminal.shows("beta [y/N] ")
        terminal.type("\n")
        await terminal.shows("beta False")


async def test_a_question_that_is_withdrawn_is_neither_repeated_nor_answered():
    code = """
async def main():
    with trio.move_on_after(0.2) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ui.ask, "trust it?")
            await trio.testing.wait_all_tasks_blocked()
            ui.stop_asking()
            ui.say("leaving")
            await ui.ask("and that one?")
    print("unanswered", scope.cancelled_caught, flush=True)
import trio.testing
trio.run(main)
"""
    with Terminal(code) as terminal:
        whole = "trust it? [y/N] \r\nleaving\r\nunanswered True"
        assert await terminal.shows(whole) == ""


async def test_a_line_said_meanwhile_repeats_the_question():
    code = """
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ui.ask, "trust it?")
        await trio.sleep(0.05)
        ui.say("office-2 is lost")
trio.run(main)
"""
    with Terminal(code) as terminal:
        assert await terminal.shows("trust it? [y/N] ") == ""
        again = "office-2 is lost\r\ntrust it? [y/N] "
        assert await terminal.shows(again) == "\r\n"


async def test_a_question_shows_no_control_characters():
    with Terminal("trio.run(ui.ask, 'a\\x1b[2Jb')") as terminal:
        assert await terminal.shows("a\\x1b[2Jb [y/N] ") == ""


async def test_without_a_terminal_the_answer_is_no(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert await ui.ask("trust it?") is False

    assert capfd.readouterr() == ("", "")


async def test_a_table_on_a_terminal_has_what_the_plain_one_has():
    code = "ui.table(('NAME', 'NOTE'), [('office-1', '[bold]x\\x1b[2J')])"
    with Terminal(code) as terminal:
        await terminal.shows("office-1")
        await terminal.shows("[bold]x\\x1b[2J")


def test_control_characters_are_shown_as_escapes():
    assert ui.plain("a\x1b[2J\n\u202eé…") == "a\\x1b[2J\\n\\u202eé…"


async def test_a_secret_is_asked_for_and_not_shown():
    code = "print('it was', ui.ask_secret('Passphrase')[::-1])"
    with Terminal(code) as terminal:
        await terminal.shows("Passphrase: ")
        terminal.type("open sesame\n")
        await terminal.shows("it was emases nepo")
        assert "open sesame" not in terminal.shown


def test_without_a_terminal_there_is_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("open sesame\n"))

    assert ui.ask_secret("Passphrase") is None


COUNT = """
with Counting("map", 3) as counting:
    counting.show(1, "2 run")
    with counting.hidden():
        ui.pass_on(b"data \\x1b[31m\\tof one\\n")
        ui.pass_on(b"its error\\n", error=True)
    counting.show(3, "done")
print("over")
"""


async def test_a_bar_counts_and_stands_aside_for_data():
    with Terminal(COUNT) as terminal:
        before = await terminal.shows("data \\x1b[31m\tof one")
        await terminal.shows("its error")
        after = await terminal.shows("over")

    assert "map" in before
    assert "3/3" in after


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("shows", ['Counting("map", 3)', 'progress("moving w1")'])
async def test_whoever_is_ended_by_a_signal_leaves_a_cursor(shows: str, number: int):
    # Not one long wait: Python may take note of a signal just before it begins.
    code = f"with {shows}:\n print('up')\n while 1: select.select([], [], [], 0.01)"
    with Terminal(code) as one:
        await one.shows("\x1b[?25l")
        await one.shows("up")
        one.child.send_signal(number)
        await one.shows("\x1b[?25h")

        assert one.child.wait(10) == -number


STDOUT = ["ui.write('x')", "ui.write_json({'x': 1})", "ui.pass_on(b'x')"]
FULL = (
    "aemesh: error: standard output cannot be written: No space left on device\n"
    "aemesh: hint: make room where it goes, or send it elsewhere\n"
)
STDERR = ["ui.tell('x')", "ui.pass_on(b'x', error=True)"]


def printed(way: str, file: int) -> tuple[int, str]:
    """Print in a process whose output is `file`; return how it ended, and all else."""
    code = (
        "import sys\n"
        "from aemesh.cli import ui\n"
        "from aemesh.cli.failures import failed\n"
        "try:\n"
        f"    {way}\n"
        "except Exception as error:\n"
        "    error = ExceptionGroup('of a nursery', [error])\n"
        "    sys.exit(failed(error, as_json=False))\n"
    )
    ours = {"stdout": file, "stderr": subprocess.PIPE}
    if way in STDERR:
        ours = {"stdout": subprocess.PIPE, "stderr": file}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, text=True, check=False, timeout=30, **ours)
    return done.returncode, done.stderr or done.stdout or ""


@pytest.mark.parametrize("way", STDOUT + STDERR)
def test_who_prints_for_nobody_ends_as_by_a_broken_pipe(way: str):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert printed(way, writing) == (141, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("way", STDOUT + STDERR)
def test_what_a_full_disk_does_not_take_is_told_where_it_can_be(way: str):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = printed(way, full)
    finally:
        os.close(full)

    assert code == 3
    assert said == (FULL if way in STDOUT else "")


def test_without_a_terminal_data_is_passed_on_as_it_is(
    capfdbinary: pytest.CaptureFixture[bytes],
):
    with Counting("map", 3) as counting, counting.hidden():
        counting.show(1, "2 run")
        ui.pass_on(b"data \x1b[31m\xff")
        ui.pass_on(b"error", error=True)

    assert capfdbinary.readouterr() == (b"data \x1b[31m\xff", b"error")
