"""The ledger of durable runs: what counts is on the disk, and stays true."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import LedgerError, OtherWorkError, RunFullError, UnknownRunError
from aemesh.host.ledger.blobs import Blobs
from aemesh.host.ledger.ledger import Ledger, memory_ledger, open_ledger
from aemesh.model.names import GroupName
from aemesh.model.run import Checkpoint, Commit, ItemId, Piece, RunKey, RunName

A, B = GroupName("A"), GroupName("B")
K = RunKey("k")
LARGE = b"x" * (limits.RUN_ROW_BYTES + 1)
LARGER = b"y" * (limits.RUN_ROW_BYTES + 2)


def item(number: int) -> ItemId:
    return ItemId(f"{number:032x}")


def begin(
    ledger: Ledger, group: GroupName = A, *, fingerprint: str = "f", fresh: bool = False
) -> RunName:
    view = ledger.open_run(
        group, K, fingerprint=fingerprint, title=fingerprint, total=3, fresh=fresh
    )
    return RunName(group, K, view.life)


def commit(ledger: Ledger, run: RunName, **values: bytes) -> Any:
    pieces = tuple(Piece(item(int(n[1:])), value) for n, value in values.items())
    return ledger.apply([Commit(run, pieces)])[0]


def checkpoint(ledger: Ledger, run: RunName, number: int, state: bytes) -> Any:
    return ledger.apply([Checkpoint(run, Piece(item(number), state))])[0]


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").rglob("*") if path.is_file()}


def digests(*values: bytes) -> set[str]:
    return {hashlib.sha256(value).hexdigest() for value in values}


def opened(folder: Path | None) -> Any:
    if folder is None:
        return nullcontext(memory_ledger(wall=lambda: 1.0))
    return open_ledger(folder, wall=lambda: 1.0)


def test_what_was_committed_is_there_again(tmp_path: Path) -> None:
    """Shows: L3."""
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        assert commit(ledger, run, i1=b"one", i2=LARGE) is None
        ledger.check()

    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        assert ledger.known(run, [item(1), item(2), item(3)]) == [item(1), item(2)]
        assert ledger.value(run, item(1)) == b"one"
        assert ledger.value(run, item(2)) == LARGE
        assert ledger.value(run, item(3)) is None
        view = ledger.run(A, K)
        assert (view.items, view.bytes, view.total) == (2, 3 + len(LARGE), 3)
        ledger.check()


def test_the_first_value_of_an_item_counts() -> None:
    with opened(None) as ledger:
        run = begin(ledger)
        commit(ledger, run, i1=b"one")

        assert commit(ledger, run, i1=b"another", i2=b"two") is None

        assert ledger.value(run, item(1)) == b"one"
        assert ledger.value(run, item(2)) == b"two"
        ledger.check()


def test_a_checkpoint_takes_the_place_of_the_one_before_and_goes_with_the_end() -> None:
    with opened(None) as ledger:
        run = begin(ledger)
        for state in (b"1", b"2"):
            ledger.apply([Checkpoint(run, Piece(item(1), state))])

        assert ledger.state(run, item(1)) == b"2"
        assert ledger.run(A, K).checkpoints == 1
        commit(ledger, run, i1=b"done")
        assert ledger.state(run, item(1)) is None
        ledger.apply([Checkpoint(run, Piece(item(1), b"late"))])
        assert ledger.state(run, item(1)) is None


def test_the_file_of_a_state_goes_when_the_next_one_or_the_end_is_on_the_disk(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        for state in (LARGE, LARGER, LARGER):
            assert checkpoint(ledger, run, 1, state) is None
            assert files(tmp_path / "l") == digests(state)
        assert checkpoint(ledger, run, 1, b"small") is None
        assert files(tmp_path / "l") == set()
        assert checkpoint(ledger, run, 1, LARGE) is None

        assert commit(ledger, run, i1=b"done") is None

        assert files(tmp_path / "l") == set()
        ledger.check()


def test_the_file_of_a_state_stays_while_another_row_names_it(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        mine, other = begin(ledger, A), begin(ledger, B)
        checkpoint(ledger, mine, 1, LARGE)
        checkpoint(ledger, mine, 2, LARGE)
        commit(ledger, other, i1=LARGE)

        commit(ledger, mine, i1=b"done")
        checkpoint(ledger, mine, 2, LARGER)

        assert files(tmp_path / "l") == digests(LARGE, LARGER)
        assert ledger.value(other, item(1)) == LARGE
        ledger.check()


def test_the_file_of_a_state_stays_when_the_next_one_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        checkpoint(ledger, run, 1, LARGE)
        monkeypatch.setattr(limits, "RUN_VALUE_BYTES", len(LARGE))
        assert isinstance(checkpoint(ledger, run, 1, LARGER), RunFullError)
        (pages,) = ledger._db.execute("pragma page_count").fetchone()
        ledger._db.execute(f"pragma max_page_count = {pages}")
        assert isinstance(checkpoint(ledger, run, 1, b"a" * 60_000), LedgerError)

        assert ledger.state(run, item(1)) == LARGE


def test_the_file_of_a_state_goes_after_its_row_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows: L3; a power cut takes what a kill does not."""
    done: list[str] = []
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        checkpoint(ledger, run, 1, LARGE)
        drop = ledger._files.blobs.drop

        def noted(name: str) -> None:
            done.append("drop")
            drop(name)

        monkeypatch.setattr(ledger._files.blobs, "drop", noted)
        ledger._db.set_trace_callback(lambda text: done.append(text.split()[0]))
        checkpoint(ledger, run, 1, LARGER)
        ledger._db.set_trace_callback(None)

    steps = [one for one in done if one in {"insert", "commit", "drop"}]
    assert steps == ["insert", "commit", "drop", "commit"]


def test_a_state_that_cannot_be_removed_is_left_to_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise OSError(errno.EIO, name)

    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        checkpoint(ledger, run, 1, LARGE)
        monkeypatch.setattr(ledger._files.blobs, "drop", broken)

        assert checkpoint(ledger, run, 1, LARGER) is None

        assert files(tmp_path / "l") == digests(LARGE, LARGER)
    with opened(tmp_path / "l"):
        assert files(tmp_path / "l") == digests(LARGER)


def test_of_two_processes_each_removes_its_states_and_none_that_the_other_names(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "l") as first, opened(tmp_path / "l") as second:
        mine, other = begin(first, A), begin(second, B)
        checkpoint(first, mine, 1, LARGE)
        checkpoint(second, other, 1, LARGE)

        checkpoint(first, mine, 1, LARGER)

        assert files(tmp_path / "l") == digests(LARGE, LARGER)
        assert second.state(other, item(1)) == LARGE
        commit(second, other, i1=b"done")
        assert files(tmp_path / "l") == digests(LARGER)


def test_who_reads_a_state_while_another_process_replaces_it_has_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "l") as first, opened(tmp_path / "l") as second:
        run = begin(first)
        checkpoint(first, run, 1, LARGE)
        blobs = second._files.blobs
        get = blobs.get

        def replaced(digest: str) -> bytes:
            if digest in digests(LARGE):
                checkpoint(first, run, 1, LARGER)
            return get(digest)

        monkeypatch.setattr(blobs, "get", replaced)

        assert second.state(run, item(1)) == LARGER
        for shard in (tmp_path / "l" / "blobs").iterdir():
            for file in shard.iterdir():
                file.unlink()
        with pytest.raises(LedgerError, match="cannot be read"):
            second.state(run, item(1))


def test_what_a_checkpoint_costs_does_not_grow_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in steps of SQLite's machine; nobody looks into the folder."""
    steps: list[int] = []

    def counted(ledger: Ledger, run: RunName) -> int:
        steps.clear()
        ledger._db.set_progress_handler(lambda: steps.append(1), 1)
        assert checkpoint(ledger, run, 1, os.urandom(len(LARGE))) is None
        ledger._db.set_progress_handler(None, 1)
        return len(steps)

    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        checkpoint(ledger, run, 1, LARGE)
        monkeypatch.setattr(Blobs, "names", None)
        few = counted(ledger, run)
        for table, columns in (("items", "title, "), ("checkpoints", "")):
            ledger._db.execute(
                f"insert into {table} ({columns}life, id, digest, size, worker, at)"
                " with recursive n (n) as (select 1 union all select n + 1 from n"
                f" where n < 5000) select {'n, ' if columns else ''}?, 'of ' || n,"
                " 'of ' || n, 0, '', 0 from n",
                (run.life + (not columns),),
            )

        assert counted(ledger, run) < 1.5 * few


def test_a_ledger_of_the_first_aemesh_is_used_as_one_of_today(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        checkpoint(ledger, run, 1, LARGE)
        for (name,) in ledger._db.execute(
            "select name from sqlite_schema where type = 'index' and sql is not null"
        ).fetchall():
            ledger._db.execute(f"drop index {name}")

    with opened(tmp_path / "l") as ledger:
        for table in ("items", "checkpoints"):
            (*_, plan) = ledger._db.execute(
                f"explain query plan select 1 from {table}"
                " where digest = '' and value is null"
            ).fetchone()
            assert f"INDEX {table}_blob" in plan
        checkpoint(ledger, run, 1, LARGER)
        assert files(tmp_path / "l") == digests(LARGER)


def test_another_function_under_the_key_is_refused() -> None:
    with opened(None) as ledger:
        begin(ledger, fingerprint="f")

        with pytest.raises(OtherWorkError, match="another computation"):
            begin(ledger, fingerprint="g")

        run = begin(ledger, fingerprint="g", fresh=True)
        assert ledger.items(run, 0, most=9) == []


@pytest.mark.parametrize(
    ("rule", "words"), [("2:", "another rule"), ("", "has values of")]
)
def test_a_run_of_another_rule_is_refused_with_these_words(
    rule: str, words: str
) -> None:
    with opened(None) as ledger:
        begin(ledger, fingerprint="f")

        with pytest.raises(OtherWorkError, match=words):
            begin(ledger, fingerprint=f"{rule}g")


def test_a_run_begun_anew_takes_nothing_of_its_former_life() -> None:
    with opened(None) as ledger:
        old = begin(ledger)
        new = begin(ledger, fresh=True)

        assert isinstance(commit(ledger, old, i1=b"late"), UnknownRunError)
        with pytest.raises(UnknownRunError):
            ledger.known(old, [item(1)])
        assert ledger.known(new, [item(1)]) == []


def test_a_run_of_one_group_is_none_of_another() -> None:
    with opened(None) as ledger:
        run = begin(ledger, A)
        foreign = RunName(B, run.key, run.life)

        assert isinstance(commit(ledger, foreign, i1=b"x"), UnknownRunError)
        with pytest.raises(UnknownRunError):
            ledger.value(foreign, item(1))


def test_one_that_is_refused_leaves_the_others_of_its_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RUN_VALUE_BYTES", 4)
    with opened(None) as ledger:
        run = begin(ledger)
        good = Commit(run, (Piece(item(1), b"one"),))
        bad = Commit(run, (Piece(item(2), b"two"), Piece(item(3), b"three")))

        first, second = ledger.apply([good, bad])

        assert first is None
        assert isinstance(second, RunFullError)
        assert [one.id for one in ledger.items(run, 0, most=9)] == [item(1)]
        ledger.check()


def test_bounds_of_items_bytes_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(None) as ledger:
        run = begin(ledger)
        monkeypatch.setattr(limits, "RUN_ITEMS", 1)
        assert isinstance(commit(ledger, run, i1=b"", i2=b""), RunFullError)
        assert commit(ledger, run, i1=b"12") is None
        monkeypatch.setattr(limits, "RUN_ITEMS", 9)
        monkeypatch.setattr(limits, "RUN_BYTES", 3)
        assert isinstance(commit(ledger, run, i2=b"34"), RunFullError)
        monkeypatch.setattr(limits, "RUN_CHECKPOINTS", 1)
        for number, error in ((3, type(None)), (4, RunFullError), (3, type(None))):
            order = Checkpoint(run, Piece(item(number), b"s"))
            assert isinstance(ledger.apply([order])[0], error)
        monkeypatch.setattr(limits, "RUNS", 1)
        with pytest.raises(RunFullError, match="runs are kept"):
            begin(ledger, B)


def test_states_count_among_the_bytes_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat: 87: what a member can have us keep on the disk is bounded."""
    monkeypatch.setattr(limits, "RUN_BYTES", 10)
    with opened(None) as ledger:
        run = begin(ledger)
        assert checkpoint(ledger, run, 1, b"12345") is None
        assert commit(ledger, run, i2=b"12") is None
        assert isinstance(checkpoint(ledger, run, 3, b"1234"), RunFullError)
        assert isinstance(checkpoint(ledger, run, 1, b"123456789"), RunFullError)
        assert isinstance(commit(ledger, run, i3=b"1234"), RunFullError)
        assert ledger.state(run, item(1)) == b"12345"

        assert checkpoint(ledger, run, 1, b"12345678") is None
        assert commit(ledger, run, i2=b"1234") is None  # it has its value already
        assert commit(ledger, run, i1=b"87654321") is None

        view = ledger.run(A, K)
        assert (view.items, view.bytes, view.checkpoints) == (2, 10, 0)
        assert checkpoint(ledger, run, 3, b"") is None
        ledger.check()


def test_a_removed_run_takes_its_files_with_it_and_no_others(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        mine, other = begin(ledger, A), begin(ledger, B)
        commit(ledger, mine, i1=LARGE, i2=LARGE + b"2")
        commit(ledger, other, i1=LARGE)

        ledger.drop(A, K)

        assert [view.group for view in ledger.runs()] == [B]
        assert ledger.value(other, item(1)) == LARGE
        files = [p for p in (tmp_path / "l" / "blobs").rglob("*") if p.is_file()]
        assert len(files) == 1
        with pytest.raises(UnknownRunError):
            ledger.drop(A, K)


def test_files_of_a_killed_writer_are_removed_at_the_next_start(tmp_path: Path) -> None:
    with opened(tmp_path / "l"):
        pass
    shard = tmp_path / "l" / "blobs" / "ab"
    shard.mkdir(mode=0o700)
    (shard / ("ab" + "0" * 62)).write_bytes(b"no row names me")
    (shard / (".ab" + "0" * 62 + ".12345678")).write_bytes(b"half")

    with opened(tmp_path / "l"):
        assert list(shard.iterdir()) == []


def test_a_second_process_sweeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as first:
        stray = tmp_path / "l" / "blobs" / "ab" / ("ab" + "0" * 62)
        stray.parent.mkdir(mode=0o700)
        stray.write_bytes(b"a row is about to name me")
        with opened(tmp_path / "l") as second:
            assert stray.exists()
            run = begin(second)
            commit(second, run, i1=b"one")
            assert first.value(run, item(1)) == b"one"


def test_who_could_not_sweep_still_keeps_others_from_sweeping(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as first, opened(tmp_path / "l") as second:
        # The second one has asked to sweep when it was opened.
        stray = tmp_path / "l" / "blobs" / "ab" / ("ab" + "0" * 62)
        stray.parent.mkdir(mode=0o700)
        stray.write_bytes(b"a row of the second one is about to name me")

        for ledger in (first, second, first):
            ledger.sweep()
            assert stray.exists()


def test_a_value_that_is_there_already_counts_once_its_name_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def sync_folder(folder: Path) -> None:
        synced.append(folder)
        if len(synced) == 2:
            raise OSError(errno.EIO, "as if it had been killed here")

    monkeypatch.setattr("aemesh.host.wholefile.sync_folder", sync_folder)
    monkeypatch.setattr("aemesh.host.ledger.blobs.sync_folder", sync_folder)
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        assert isinstance(commit(ledger, run, i1=LARGE), LedgerError)
        assert commit(ledger, run, i1=LARGE) is None

    blobs = tmp_path / "l" / "blobs"
    (file,) = (p for p in blobs.rglob("*") if p.is_file())
    assert synced == [blobs, file.parent, file.parent]


def test_a_value_is_on_the_disk_before_its_row_and_that_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows: L3; a power cut takes what a kill does not."""
    done: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        done.append(kind)
        fsync(fd)

    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        assert ledger._db.execute("pragma synchronous").fetchone() == (2,)  # full
        ledger._db.set_trace_callback(lambda text: done.append(text.split()[0]))
        monkeypatch.setattr(os, "fsync", noted)
        assert commit(ledger, run, i1=LARGE) is None
        monkeypatch.undo()
        ledger._db.set_trace_callback(None)

    # The folder of folders, the value, its name; then its row; then the end of it all.
    assert [one for one in done if one in {"file", "folder", "insert", "commit"}] == [
        "folder", "file", "folder", "insert", "commit"
    ]  # fmt: skip
    assert done[-1] == "commit"


def test_a_damaged_value_is_told_and_not_given(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        commit(ledger, run, i1=LARGE)
        (file,) = (p for p in (tmp_path / "l" / "blobs").rglob("*") if p.is_file())
        file.write_bytes(LARGE[:-1] + b"y")

        with pytest.raises(LedgerError, match="damaged"):
            ledger.value(run, item(1))


def test_a_full_disk_counts_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as ledger:
        run = begin(ledger)
        (pages,) = ledger._db.execute("pragma page_count").fetchone()
        ledger._db.execute(f"pragma max_page_count = {pages + 2}")

        error = commit(ledger, run, i1=b"a" * 60_000)

        assert isinstance(error, LedgerError)
        assert ledger.items(run, 0, most=9) == []
        ledger._db.execute("pragma max_page_count = 100000")
        assert commit(ledger, run, i1=b"a" * 60_000) is None
        ledger.check()


def test_one_that_is_opened_lazily_makes_no_files_until_it_is_asked(
    tmp_path: Path,
) -> None:
    with open_ledger(tmp_path / "l", wall=lambda: 1.0, lazily=True) as ledger:
        assert not (tmp_path / "l").exists()
        run = begin(ledger)
        commit(ledger, run, i1=b"one")
    with open_ledger(tmp_path / "l", wall=lambda: 1.0, lazily=True) as ledger:
        assert ledger.value(run, item(1)) == b"one"


def test_a_newer_or_damaged_ledger_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "l"):
        pass
    db = sqlite3.connect(tmp_path / "l" / "ledger.sqlite")
    db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="version 99"), opened(tmp_path / "l"):
        pass
    for file in (tmp_path / "l").glob("ledger.sqlite*"):
        file.unlink()
    (tmp_path / "l" / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match="cannot use"), opened(tmp_path / "l"):
        pass


WRITER = """
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from aemesh.host.ledger.ledger import open_ledger
from aemesh.model.run import Commit, ItemId, Piece, RunName
with open_ledger(Path(sys.argv[1]), wall=lambda: 1.0) as ledger:
    view = ledger.open_run("A", "k", fingerprint="f", title="f", total=9)
    run = RunName("A", "k", view.life)
    for number in range(100_000):
        value = bytes([number % 251]) * (200_000 if number % 3 == 0 else 100)
        assert ledger.apply([Commit(run, (Piece(f"{number:032x}", value),))]) == [None]
        print(number, flush=True)
"""


def test_what_was_told_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Shows: L3."""
    root = str(Path(__file__).parents[3])
    for lines in (1, 7, 20):
        folder = tmp_path / str(lines)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), root], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(lines):
            told = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        last = int(rest[-1]) if rest else told

        with opened(folder) as ledger:
            run = begin(ledger)
            ids = [item(number) for number in range(last + 1)]
            assert ledger.known(run, ids) == ids
            ledger.check()


SAVER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from aemesh.host.ledger.ledger import open_ledger
from aemesh.model.run import Checkpoint, Commit, ItemId, Piece, RunName
with open_ledger(Path(sys.argv[1]), wall=lambda: 1.0) as ledger:
    view = ledger.open_run("A", "k", fingerprint="f", title="f", total=9)
    run = RunName("A", "k", view.life)
    for number in range(100_000):
        state = Piece(f"{number % 3:032x}", number.to_bytes(4, "big") * 40_000)
        assert ledger.apply([Checkpoint(run, state)]) == [None]
        done = Piece(f"{number + 3:032x}", state.value)
        assert ledger.apply([Commit(run, (done,))]) == [None]
        print(number, flush=True)
"""


def test_a_state_survives_a_kill_at_any_moment_and_the_former_ones_are_gone(
    tmp_path: Path,
) -> None:
    """Shows: L3."""
    root = str(Path(__file__).parents[3])
    for lines in (1, 6, 15):
        folder = tmp_path / str(lines)
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder), root], stdout=subprocess.PIPE
        )
        assert saver.stdout is not None
        for _ in range(lines):
            saver.stdout.readline()
        os.kill(saver.pid, signal.SIGKILL)
        saver.stdout.read()
        saver.wait()
        saver.stdout.close()

        with opened(folder) as ledger:
            begin(ledger)
            ledger.check()
            assert files(folder) == named(ledger)


def named(ledger: Ledger) -> set[str]:
    """Return the files that rows name."""
    rows = ledger._db.execute(
        "select digest from items where value is null"
        " union select digest from checkpoints where value is null"
    )
    return {digest for (digest,) in rows}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2)), max_size=12
    )
)
def test_the_files_are_those_that_rows_name(steps: list[tuple[bool, int, int]]) -> None:
    values = (b"small", LARGE, LARGER)
    with tempfile.TemporaryDirectory() as name, opened(Path(name) / "l") as ledger:
        run = begin(ledger)
        for ends, number, value in steps:
            if ends:
                ledger.apply([Commit(run, (Piece(item(number), values[value]),))])
            else:
                checkpoint(ledger, run, number, values[value])
            assert files(Path(name) / "l") == named(ledger)
            ledger.check()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["commit", "checkpoint", "fresh", "drop", "open"]),
            st.integers(0, 3),
            st.binary(max_size=6),
        ),
        max_size=25,
    )
)
def test_the_ledger_is_a_table_of_first_values(steps: Any) -> None:
    done: dict[ItemId, bytes] = {}
    states: dict[ItemId, bytes] = {}
    with opened(None) as ledger:
        run = begin(ledger)
        for kind, number, value in steps:
            one = item(number)
            if kind in ("fresh", "drop"):
                if kind == "drop":
                    ledger.drop(A, K)
                run = begin(ledger, fresh=True)
                done, states = {}, {}
            elif kind == "open":
                assert begin(ledger) == run
            elif kind == "commit":
                ledger.apply([Commit(run, (Piece(one, value),))])
                done.setdefault(one, value)
                states.pop(one, None)
            else:
                ledger.apply([Checkpoint(run, Piece(one, value))])
                if one not in done:
                    states[one] = value
            ledger.check()
        for number in range(4):
            assert ledger.value(run, item(number)) == done.get(item(number))
            assert ledger.state(run, item(number)) == states.get(item(number))
        sizes = {one.id: one.size for one in ledger.items(run, 0, most=99)}
        assert sizes == {one: len(value) for one, value in done.items()}
        digests = {one.id: one.digest for one in ledger.items(run, 0, most=99)}
        assert digests == {
            one: hashlib.sha256(value).hexdigest() for one, value in done.items()
        }
