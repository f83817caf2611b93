"""The output of a detached script: bounded, and readable while it grows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.client.joboutput import (
    OutputWriter,
    last_lines,
    output_start,
    read_output,
)

if TYPE_CHECKING:
    from pathlib import Path


def _all(folder: Path, at: int = 0) -> tuple[int, bytes]:
    """Return where what is kept begins, and all of it."""
    piece = read_output(folder, at)
    first, data = piece.at, piece.data
    while piece.data:
        piece = read_output(folder, piece.end)
        assert not piece.gone
        data += piece.data
    return first, data


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_what_is_kept_is_the_end_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, writes: list[bytes]
):
    folder = tmp_path_factory.mktemp("job")
    writer = OutputWriter(folder, piece_bytes=16, pieces=3)
    for data in writes:
        writer.write(data)
    writer.close()

    said = b"".join(writes)
    first, kept = _all(folder)
    assert kept == said[first:]
    assert first == output_start(folder)
    assert len(kept) <= 3 * 16
    assert len(kept) > 2 * 16 or first == 0


def test_a_reader_that_is_overtaken_is_told_how_much_it_missed(tmp_path: Path):
    writer = OutputWriter(tmp_path, piece_bytes=10, pieces=2)
    writer.write(b"0123456789ab")
    seen = read_output(tmp_path, 0)
    writer.write(b"x" * 30)

    piece = read_output(tmp_path, seen.end)

    assert (piece.at, piece.gone) == (30, 20)
    writer.close()


def test_a_reader_at_the_end_gets_what_comes_next(tmp_path: Path):
    writer = OutputWriter(tmp_path, piece_bytes=4, pieces=2)
    writer.write(b"abcd")
    end = read_output(tmp_path, 0).end

    assert read_output(tmp_path, end).data == b""
    writer.write(b"ef")
    assert read_output(tmp_path, end).data == b"ef"
    writer.close()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, b""), (1, b"three\n"), (2, b"two\nthree\n"), (9, b"one\ntwo\nthree\n")],
)
def test_the_last_lines_are_found_over_pieces(
    tmp_path: Path, lines: int, expected: bytes
):
    writer = OutputWriter(tmp_path, piece_bytes=5, pieces=9)
    writer.write(b"one\ntwo\nthree\n")
    writer.close()

    assert _all(tmp_path, last_lines(tmp_path, lines))[1] == expected


def test_a_line_without_an_end_is_a_line(tmp_path: Path):
    writer = OutputWriter(tmp_path)
    writer.write(b"one\ntwo")
    writer.close()

    assert read_output(tmp_path, last_lines(tmp_path, 1)).data == b"two"


def test_who_wants_no_line_of_what_is_there_misses_nothing_of_what_comes(
    tmp_path: Path,
):
    writer = OutputWriter(tmp_path)
    at = last_lines(tmp_path, 0)
    writer.write(b"one\ntwo")
    later = last_lines(tmp_path, 0)
    writer.write(b" and more\n")
    writer.close()

    assert read_output(tmp_path, at).data == b"one\ntwo and more\n"
    assert read_output(tmp_path, later).data == b" and more\n"


def test_a_full_disk_does_not_stop_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = OutputWriter(tmp_path)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", full)
    writer.write(b"lost")
    monkeypatch.setattr(os, "write", real)
    writer.write(b"kept")
    writer.close()

    assert read_output(tmp_path, 0).data == b"kept"


def test_what_children_print_is_kept_to_the_last_byte(tmp_path: Path):
    code = (
        "import pathlib, subprocess, sys\n"
        "from aemesh.client.joboutput import OutputWriter, kept_output\n"
        "with kept_output(OutputWriter(pathlib.Path(sys.argv[1]))):\n"
        "    print('ours', flush=True)\n"
        "    said = 'echo out; echo err >&2; yes | head -c 99999'\n"
        "    subprocess.run(['sh', '-c', said])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, check=True
    )

    assert (done.stdout, done.stderr) == (b"", b"")
    assert _all(tmp_path)[1] == b"ours\nout\nerr\n" + b"y\n" * 49999 + b"y"
