"""Commands that print what others wrote, where nobody takes it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.roles.test_jobtalk import gone, jobs_served

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = {
    "exec": ["exec", "--group", "A", "echo", "a"],
    "exec --json": ["exec", "--group", "A", "--json", "echo", "a"],
    "map": ["map", "--group", "A", "--", "echo", "{}", ":::", "a", "b"],
    "map --json": ["map", "--group", "A", "--json", "--", "echo", "{}", ":::", "a"],
    "rsh": ["rsh", "office-1", "echo", "a"],
}


async def ended(tmp_path: Path, command: str, output: int) -> tuple[int, str]:
    """Run a command whose output is a file; return its exit code, and what it said."""
    argv = [sys.executable, "-m", "aemesh", "--state", str(tmp_path)]
    async with jobs_served(tmp_path) as (_, runner, _):
        with trio.fail_after(30):
            done = await trio.run_process(
                [*argv, *COMMANDS[command]],
                stdout=output,
                capture_stderr=True,
                check=False,
            )
        await gone(runner)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_reader_that_is_gone_ends_it_as_a_broken_pipe_does(
    tmp_path: Path, command: str
):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert await ended(tmp_path, command, writing) == (141, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_full_disk_is_the_users_and_no_bug_of_ours(
    tmp_path: Path, command: str
):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = await ended(tmp_path, command, full)
    finally:
        os.close(full)

    assert code == (3 if command.startswith("exec") else 255)
    assert "standard output cannot be written" in said
    assert "No space left on device" in said
    assert "Traceback" not in said
