"""A folder of files as one zip, and back."""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage, RunFullError, SettingsError
from aemesh.host import folderzip
from aemesh.host.folderzip import unzip_untrusted, zip_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def zipped(*entries: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def test_a_folder_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "deep" / "er" / "file").write_bytes(b"x" * 100_000)
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)

    unzip_untrusted(zip_folder(folder), tmp_path / "again")

    again = tmp_path / "again"
    assert sorted(p.relative_to(again).as_posix() for p in again.rglob("*")) == [
        "deep",
        "deep/er",
        "deep/er/file",
        "empty",
        "run",
    ]
    assert (again / "deep" / "er" / "file").read_bytes() == b"x" * 100_000
    assert stat.S_IMODE((again / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((again / "deep/er/file").stat().st_mode) == 0o600


def test_what_was_there_is_replaced_whole(folder: Path, tmp_path: Path) -> None:
    (folder / "new").write_text("new")
    data = zip_folder(folder)
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")

    unzip_untrusted(data, target)

    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_link_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(SettingsError, match="neither a file nor a folder"):
        zip_folder(folder)


def test_what_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine").touch()

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(type(folder), "open", refuse)  # root may read everything
    with pytest.raises(SettingsError, match=r"mine cannot .*: Permission") as caught:
        zip_folder(folder)
    assert caught.value.hint == "make it readable, or keep it in another folder"


def test_what_goes_away_meanwhile_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folderzip, "_walk", lambda folder: [folder / "gone"])
    with pytest.raises(SettingsError, match=r"gone cannot .*: No such file"):
        zip_folder(folder)


@pytest.mark.parametrize(
    ("name", "shown"), [(b"back\\slash", r'"back\\slash"'), (b"\xff", r'"\udcff"')]
)
def test_what_would_not_come_back_is_refused_at_once(
    folder: Path, name: bytes, shown: str
) -> None:
    deep = folder / ("long" * 30)
    deep.mkdir()
    (deep / os.fsdecode(name)).touch()
    with pytest.raises(SettingsError, match="cannot be in a checkpoint") as caught:
        zip_folder(folder)
    assert caught.value.what.startswith(f"{shown} in {deep} ")


def test_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (folder / name).write_bytes(b"x" * 10)
    monkeypatch.setattr(limits, "CHECKPOINT_FILES", 2)
    with pytest.raises(RunFullError, match="more than 2 files and folders"):
        zip_folder(folder)
    monkeypatch.setattr(limits, "CHECKPOINT_FILES", 9)
    monkeypatch.setattr(limits, "CHECKPOINT_BYTES", 20)
    with pytest.raises(RunFullError, match="more than 20 bytes together"):
        zip_folder(folder)


@pytest.mark.parametrize(
    "entry",
    [
        ("../out", b"x", 0),
        ("/etc/out", b"x", 0),
        ("a/../../out", b"x", 0),
        ("a//b", b"x", 0),
        ("..", b"x", 0),
        ("a\\b", b"x", 0),
        ("link", b"/etc/passwd", stat.S_IFLNK | 0o777),
        ("device", b"", stat.S_IFCHR | 0o600),
    ],
)
def test_what_no_checkpoint_has_is_refused_and_nothing_is_written(
    entry: tuple[str, bytes, int], tmp_path: Path
) -> None:
    """Threat: 65, 66: a zip from elsewhere writes nowhere else, and no links."""
    with pytest.raises(BadMessage):
        unzip_untrusted(zipped(("good", b"x", 0), entry), tmp_path / "state")

    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_refused_before_it_goes_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threat: 69."""
    monkeypatch.setattr(limits, "CHECKPOINT_BYTES", 1000)
    with pytest.raises(BadMessage, match="1001 bytes"):
        unzip_untrusted(zipped(("big", b"x" * 1001, 0)), tmp_path / "state")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", [("a", b"1", 0), ("a/b", b"1", 0)])
def test_one_name_twice_is_refused(
    twice: tuple[str, bytes, int], tmp_path: Path
) -> None:
    with pytest.raises(BadMessage):
        unzip_untrusted(zipped(("a", b"0", 0), twice), tmp_path / "state")

    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_raise_bad_message_only(data: bytes, at: int) -> None:
    good = zipped(("a", b"hello" * 20, 0), ("b", b"x", 0))
    with TemporaryDirectory() as made:
        unzip_all(Path(made), data, good[:at], good[:at] + data + good[at:])


def unzip_all(folder: Path, *zips: bytes) -> None:
    for one in zips:
        with suppress(BadMessage):
            unzip_untrusted(one, folder / "state")
