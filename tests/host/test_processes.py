"""The process table as /proc shows it."""

from __future__ import annotations

import os
import subprocess

from aemesh.host.processes import all_processes, children


def test_the_children_of_a_process_are_those_that_name_it_as_their_parent() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        try:
            found = children(os.getpid())

            assert found[child.pid].session == child.pid
            table = all_processes()
            assert set(found) <= {
                p for p, one in table.items() if one.parent == os.getpid()
            }
        finally:
            child.kill()


def test_a_process_that_is_gone_has_no_children() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()

    assert children(child.pid) == {}
