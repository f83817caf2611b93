"""Folders of a process: gone with it, however it ended, and no other's."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aemesh.host.livefolder import LiveFolder, live_folders
from aemesh.host.processname import ProcessName

CODE = """
import pathlib, sys
from aemesh.host.livefolder import LiveFolder
folder = LiveFolder(pathlib.Path(sys.argv[1]))
(folder.path / "key").write_text("secret")
print(folder.path, flush=True)
sys.stdin.read()
"""


def _start(parent: Path) -> tuple[subprocess.Popen[bytes], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().decode().strip())


def _end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    if kill:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def test_it_is_private_and_ends_with_its_process(tmp_path: Path):
    process, folder = _start(tmp_path / "clients")

    assert live_folders(tmp_path / "clients") == [folder]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    _end(process, kill=False)
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path):
    process, folder = _start(tmp_path)
    other, theirs = _start(tmp_path)
    _end(process, kill=True)
    assert folder.exists()
    assert live_folders(tmp_path) == [theirs]

    ours = LiveFolder(tmp_path)

    assert {*tmp_path.iterdir()} == {theirs, ours.path}
    ours.close()
    ours.close()
    _end(other, kill=False)
    assert not list(tmp_path.iterdir())


NAME = ProcessName.ours()


@pytest.mark.parametrize(
    ("name", "running"),
    [
        (NAME, True),
        (replace(NAME, started=NAME.started + 1), False),
        (replace(NAME, boot="0" * 12), False),
        (replace(NAME, host="another-machine.example"), None),
    ],
)
def test_a_name_is_of_one_process_for_good(name: ProcessName, running: bool | None):
    assert name.running() is running
    assert ProcessName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "1", "1-2", "1-2-abc", "x-2-abc-host", "1-2--h"])
def test_another_text_names_no_process(text: str):
    assert ProcessName.parse(text) is None


def test_folders_of_another_machine_and_of_other_shapes_are_left(tmp_path: Path):
    elsewhere = tmp_path / f"{replace(NAME, host='else-where', pid=2**22)}-x7_a"
    elsewhere.mkdir()
    (tmp_path / "notes").mkdir()

    LiveFolder(tmp_path).close()

    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, "notes"}
    assert live_folders(tmp_path) == []
    assert live_folders(tmp_path / "nothing") == []


FORKING = """
import os, pathlib, sys
from aemesh.host.livefolder import LiveFolder
folder = LiveFolder(pathlib.Path(sys.argv[1]))
child = os.fork()
if not child:
    folder.close()
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
print(folder.path.exists())
"""


def test_a_fork_that_ends_removes_nothing_of_its_parent(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORKING, tmp_path],
        capture_output=True,
        timeout=20,
        check=True,
    )

    assert (done.stdout, list(tmp_path.iterdir())) == (b"True\n", [])
