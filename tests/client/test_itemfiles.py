"""What the items of ``aemesh map`` came to, as files: whole, and of these alone."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

import pytest

from aemesh.client.ended import Ended, Said
from aemesh.client.itemfiles import ItemFolders, JobLog
from aemesh.errors import SettingsError


def ended(number: int) -> Ended:
    one = Ended(number, ("cmd",), "one", 0, "", began_at=1.0, took_after=1.0, tries=1)
    one.stdout.add(f"item {number + 1}\n".encode())
    return one


def written(folder: Path, count: int, *, until: int | None = None) -> list[str]:
    """Write items; return what the outputs of all that are there say."""
    folders = ItemFolders(folder, count=count)
    for number in range(count)[:until]:
        folders.write(ended(number))
    return sorted(place.read_text() for place in folder.glob("*/stdout"))


def items(count: int) -> list[str]:
    return sorted(f"item {number + 1}\n" for number in range(count))


@pytest.mark.parametrize(("before", "now"), [(9, 10), (10, 9), (12, 10), (3, 3)])
def test_each_item_is_there_once_and_none_goes_that_was_not_run_again(
    tmp_path: Path, before: int, now: int
) -> None:
    written(tmp_path, before)
    (tmp_path / "7000").write_text("mine")
    (tmp_path / "8000").mkdir()  # somebody else's: there is no item in it

    assert written(tmp_path, now) == items(max(before, now))
    assert (tmp_path / "7000").exists()
    assert (tmp_path / "8000").exists()


def test_a_time_that_was_cut_short_takes_no_other_items_away(tmp_path: Path) -> None:
    written(tmp_path, 12)

    assert written(tmp_path, 9, until=4) == items(12)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_nothing_is_told_before_anything_runs(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SettingsError, match=f"{tmp_path} cannot be written"):
            ItemFolders(tmp_path, count=1)
    finally:
        tmp_path.chmod(0o755)


def test_a_file_with_the_name_of_an_item_is_told_before_anything_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / "1").write_text("mine")

    with pytest.raises(SettingsError, match=f"{tmp_path}/1 is in the way"):
        ItemFolders(tmp_path, count=3)


def test_a_folder_that_is_taken_away_is_named(tmp_path: Path) -> None:
    folders = ItemFolders(tmp_path / "out", count=2)
    (tmp_path / "out").rmdir()

    with pytest.raises(SettingsError, match="out/1 cannot be written"):
        folders.write(ended(0))


def test_a_log_for_which_there_is_no_room_is_named() -> None:
    with pytest.raises(SettingsError, match="/dev/full cannot be written: No space"):
        JobLog(Path("/dev/full"))


def test_output_for_which_there_is_no_room_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limit = resource.RLIMIT_FSIZE
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (1024, before[1]))
    try:
        said = Said()
        with pytest.raises(SettingsError, match=f"no room in {tmp_path}: File too"):
            for _ in range(5):
                said.add(bytes(1024 * 1024))
        del said  # and nothing is told of it
    finally:
        resource.setrlimit(limit, before)
