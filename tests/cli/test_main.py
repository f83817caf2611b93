"""The command table, errors that come out of commands, and what a start costs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys

import click
import pytest

from aemesh.cli import main
from aemesh.errors import BugError, EngineError, SettingsError

# Generous: the CPU time is 0.09 s on the machine of the day; a heavy import is more.
HELP_CPU_AFTER = 0.15

TOLD = "aemesh: error: a: b\naemesh: hint: c\n"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_table_says_what_the_command_says(name: str):
    """Shows: U1."""
    module, attribute, text = main.COMMANDS[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    command = getattr(importlib.import_module(module), attribute)

    assert command.name == name
    assert command.get_short_help_str(limit=100) == text.rstrip(".") + "."


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("a", why="b", hint="c"), 3, TOLD),
        (ExceptionGroup("g", [EngineError("a")]), 8, "aemesh: error: a\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), 130, "\n"),
        (SettingsError("\x1b[2Jx\n"), 3, "aemesh: error: \\x1b[2Jx\\n\n"),
    ],
)  # fmt: skip
def test_what_comes_out_of_a_command_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
):
    _fail_with(monkeypatch, error)

    assert main.run(["key", "fail"]) == code
    assert capfd.readouterr() == ("", said)


@pytest.mark.parametrize("error", [BugError("x"), ZeroDivisionError("x")])
def test_a_bug_shows_its_traceback_and_where_to_report_it(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
):
    _fail_with(monkeypatch, error)

    assert main.run(["key", "fail"]) == 1

    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "please report" in said


def test_a_bug_beside_an_error_of_ours_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    _fail_with(monkeypatch, ExceptionGroup("g", [EngineError("a"), KeyError("b")]))

    assert main.run(["key", "fail"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_no_failure_of_map_itself_looks_like_a_number_of_items(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(importlib.import_module("aemesh.cli.map"), "parse", broken)

    assert main.run(["map", "--group", "A", "--", "echo", ":::", "a"]) == 255
    assert "please report" in capfd.readouterr().err


def test_help_costs_little_and_imports_no_command():
    code = (
        "import sys\n"
        "from aemesh.cli.main import run\n"
        "run(['--help'])\n"
        "heavy = ('trio', 'rich', 'msgspec', 'cryptography', 'asyncio', 'ssl')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)\n"
        "print([m for m in sys.modules if m.startswith('aemesh')], file=sys.stderr)\n"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    after = os.times()

    heavy, ours = done.stderr.splitlines()
    assert heavy == "[]"
    assert "aemesh.cli.status" not in ours
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < HELP_CPU_AFTER


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``aemesh key fail`` raise `error`."""

    @click.command("fail")
    def fail() -> None:
        raise error

    key = importlib.import_module("aemesh.cli.key").key
    monkeypatch.setitem(key.commands, "fail", fail)
