"""A process that outlives us holds nothing of ours but what it says it is up with."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from aemesh.host.detached import start_detached

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_that_it_is_up_and_has_no_other_open_file_of_ours(tmp_path: Path):
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)

    def main(ready: int) -> int:
        held = sorted(map(int, os.listdir("/proc/self/fd")))
        told = f"{held[:3]} {ready in held} {theirs in held}\n"
        os.write(1, told.encode())
        os.write(ready, b".")
        select.select([], [], [], 0.2)
        return 0

    reading = start_detached(main, log=lambda: tmp_path / "log")
    os.close(theirs)
    assert os.read(reading, 1) == b"."
    assert os.read(ours, 1) == b""  # nobody has the other end any more
    assert (tmp_path / "log").read_text() == "[0, 1, 2] True False\n"
    assert os.read(reading, 1) == b""
    os.close(ours)
    os.close(reading)


def test_a_log_that_begins_anew_has_no_hole_where_another_one_writes(tmp_path: Path):
    log = tmp_path / "log"

    def first(ready: int) -> int:
        os.write(1, b"long ago\n")
        os.write(ready, b".")
        while log.stat().st_size != len(b"anew\n"):
            select.select([], [], [], 0.01)
        os.write(1, b"still here\n")
        return 0

    def second(ready: int) -> int:
        del ready
        os.write(1, b"anew\n")
        return 0

    one = start_detached(first, log=lambda: log)
    assert os.read(one, 1) == b"."
    other = start_detached(second, log=lambda: log)
    for reading in (one, other):
        assert os.read(reading, 1) == b""
        os.close(reading)
    assert log.read_bytes() == b"anew\nstill here\n"
