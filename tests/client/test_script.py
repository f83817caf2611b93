"""Scripts: their exit code is ours, signals reach them, credentials go with them."""

from __future__ import annotations

import os
import signal
import sys
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.client.script import run_script
from aemesh.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_exit_code_is_passed_on(code: str, expected: int):
    assert run_script([sys.executable, "-c", code], os.environ) == expected


def test_a_program_that_is_not_there_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be started"):
        run_script([str(tmp_path / "nothing")], {})


def test_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)

    run_script([sys.executable, "-c", ""], os.environ)

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_a_signal_reaches_the_script_and_its_answer_comes_back(name: str):
    child = (
        "import signal, sys\n"
        f"signal.signal(signal.{name}, lambda *_: sys.exit(9))\n"
        "print('up', flush=True)\n"
        "while True: signal.pause()\n"
    )
    parent = (
        "import os, sys\n"
        "from aemesh.client.script import run_script\n"
        f"sys.exit(run_script([sys.executable, '-c', {child!r}], os.environ))\n"
    )
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", parent], stdin=DEVNULL, stdout=PIPE
    )
    try:
        with trio.fail_after(10):
            assert (await process.stdout.receive_some()).startswith(b"up")

            process.send_signal(getattr(signal, name))

            assert await process.wait() == 9
    finally:
        process.kill()
        await process.stdout.aclose()
