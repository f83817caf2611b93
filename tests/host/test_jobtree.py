"""Which processes are a job's, by the environment that they were started with."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

import pytest

from aemesh.host import jobtree
from aemesh.host.jobtree import marked
from aemesh.host.processes import read_process


def test_processes_without_an_environment_are_waited_for_no_longer_than_one(
    monkeypatch: pytest.MonkeyPatch,
):
    """Each master's job can have a thousand of them, and we look in our own loop."""
    looks = []
    monkeypatch.setattr(os, "sched_yield", lambda: looks.append(None))
    with ExitStack() as stack:
        mine = [_sleeping(stack, {"AEMESH_TREE": "mine"})]
        others = [_sleeping(stack, {}) for _ in range(40)]
        others.append(_sleeping(stack, {"AEMESH_TREE": "mine too"}))
        table = [one for pid in mine + others if (one := read_process(pid))]

        found = marked(table, "AEMESH_TREE=mine\0")

        assert [one.pid for one in found] == mine
        assert len(looks) <= 2


def test_one_in_its_exec_is_looked_at_again_however_long_the_first_look_took(
    monkeypatch: pytest.MonkeyPatch,
):
    """Of a thousand processes the table alone takes 20 ms to read."""
    looks = iter([b"", b"A=1\0AEMESH_TREE=mine\0"])
    now = iter(float(second) for second in range(100))
    monkeypatch.setattr(jobtree, "_read", lambda _path: next(looks))
    monkeypatch.setattr(jobtree.time, "monotonic", lambda: next(now))
    process = read_process(os.getpid())
    assert process is not None

    assert marked([process], "AEMESH_TREE=mine\0") == [process]


def _sleeping(stack: ExitStack, env: dict[str, str]) -> int:
    process = subprocess.Popen(["/bin/sleep", "1000"], env=env)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process.pid
