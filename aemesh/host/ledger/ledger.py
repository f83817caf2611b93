"""The ledger of durable runs: what is in it is on the disk, and stays true.

The problem: a value that was told to be safe must survive a power cut, and a value that
was not must never be taken for one.  So a large value is a file, synced before the row
that names it is written; the row is written with ``synchronous = full``; and only then
is anybody told.  What arrives together is written together (`apply`): a sync of the
disk costs the same for one item and for a thousand.

The first value of an item counts.  Whoever computed it a second time, unaware, is told
the same as the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    LedgerError,
    OtherWorkError,
    RunFullError,
    UnknownRunError,
)
from aemesh.host.folders import make_private
from aemesh.host.ledger.blobs import Blobs
from aemesh.host.ledger.schema import broken, prepare, told
from aemesh.model.run import Checkpoint, Commit, ItemView, Piece, RunName, RunView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from aemesh.model.names import GroupName
    from aemesh.model.run import ItemId, Order, RunKey

# Small values that are read in one go, by the same reason as `RUN_PAGE_BYTES`.
_PAGE = 500
_RUN = (
    "select grp, key, life, title, fingerprint, total, items, bytes, created_at,"
    " used_at, (select count(*) from checkpoints where life = runs.life) from runs"
)


class Ledger:
    """An open ledger; made by `open_ledger`, used by one thread at a time."""

    def __init__(
        self,
        db: sqlite3.Connection,
        blobs: Blobs | None,
        lock: int | None,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._lock = lock
        self._wall = wall

    def __del__(self) -> None:
        self._db.close()

    @property
    def is_on_disk(self) -> bool:
        """Whether asking it may take the time that a disk takes."""
        return self._blobs is not None

    def __repr__(self) -> str:
        return f"<Ledger {'in memory' if self._blobs is None else 'on the disk'}>"

    # --- runs ---

    def runs(self) -> list[RunView]:
        """Return every run, the one used last first."""
        with told():
            rows = self._db.execute(f"{_RUN} order by used_at desc, life desc")
            return list(map(_run_view, rows))

    def run(self, group: GroupName, key: RunKey) -> RunView:
        """Return a run, or raise `UnknownRunError`."""
        with told():
            rows = self._db.execute(f"{_RUN} where grp = ? and key = ?", (group, key))
            found = rows.fetchone()
        if found is None:
            raise UnknownRunError(group, key)
        return _run_view(found)

    def open_run(  # noqa: PLR0913 - what a run is, by name
        self,
        group: GroupName,
        key: RunKey,
        *,
        fingerprint: str,
        title: str,
        total: int,
        fresh: bool = False,
    ) -> RunView:
        """Go on with a run, or begin it; `fresh` forgets what it had.

        Raises `OtherWorkError` if its values are of another `fingerprint`.
        """
        with self._writing() as db:
            if fresh:
                self._forget(group, key)
            now = self._wall()
            (count,) = db.execute("select count(*) from runs").fetchone()
            row = db.execute(
                "select fingerprint, title from runs where grp = ? and key = ?",
                (group, key),
            ).fetchone()
            if row is None and count >= limits.RUNS:
                msg = f"{count} runs are kept already"
                hint = "`aemesh runs rm` removes what is not needed"
                raise RunFullError(msg, hint=hint)
            if row is not None and row[0] != fingerprint:
                raise OtherWorkError(key, row[1], title)
            db.execute(
                "insert into runs (grp, key, fingerprint, title, total, created_at,"
                " used_at) values (?, ?, ?, ?, ?, ?, ?) on conflict (grp, key) do"
                " update set total = excluded.total, used_at = excluded.used_at",
                (group, key, fingerprint, title, total, now, now),
            )
        if fresh:
            self.sweep()
        return self.run(group, key)

    def drop(self, group: GroupName, key: RunKey) -> None:
        """Remove a run and all it has; raises `UnknownRunError`."""
        self.run(group, key)
        with self._writing():
            self._forget(group, key)
        self.sweep()

    # --- items ---

    def apply(self, orders: Sequence[Order]) -> list[AemeshError | None]:
        """Write what arrived together; return for each None, or why it was not done.

        One transaction and one sync of the disk.  If that itself goes wrong nothing of
        it counts, and all are told.
        """
        try:
            with self._writing():
                return [self._apply_one(order) for order in orders]
        except LedgerError as error:
            return [error] * len(orders)

    def known(self, run: RunName, ids: Sequence[ItemId]) -> list[ItemId]:
        """Return those of these items that are committed."""
        self._check(run)
        marks = ",".join("?" * len(ids))
        with told():
            rows = self._db.execute(
                f"select id from items where life = ? and id in ({marks})",  # noqa: S608 - question marks
                (run.life, *ids),
            )
            found = {row[0] for row in rows}
        return [item for item in ids if item in found]

    def items(self, run: RunName, after: int, *, most: int) -> list[ItemView]:
        """Return what was committed behind number `after`, in its order."""
        self._check(run)
        with told():
            rows = self._db.execute(
                "select number, id, title, digest, size, worker, at from items"
                " where life = ? and number > ? order by number limit ?",
                (run.life, after, most),
            )
            return [
                ItemView(number=n, id=i, title=t, digest=d, size=s, worker=w, at=at)
                for n, i, t, d, s, w, at in rows
            ]

    def value(self, run: RunName, item: ItemId) -> bytes | None:
        """Return an item's value, or None if it is not committed."""
        return self._value("items", run, item)

    def values(self, run: RunName, items: Sequence[ItemId]) -> list[bytes | None]:
        """Return values of the first of these items: one, or some that are small."""
        found: list[bytes | None] = []
        size = 0
        for item in items[:_PAGE]:
            found.append(self.value(run, item))
            size += len(found[-1] or b"")
            if size > limits.RUN_PAGE_BYTES:
                break
        return found

    def state(self, run: RunName, item: ItemId) -> bytes | None:
        """Return the last checkpoint of an item that is in the middle, or None."""
        return self._value("checkpoints", run, item)

    def sweep(self) -> None:
        """Remove files that no row names, unless another process has us open too."""
        if self._blobs is None or self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            used = {
                row[0]
                for table in ("items", "checkpoints")
                for row in self._db.execute(
                    f"select digest from {table} where value is null"  # noqa: S608 - ours
                )
            }
            for name in list(self._blobs.names()):
                if name not in used:
                    self._blobs.drop(name)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def check(self) -> None:
        """Assert what always holds."""
        for life, items, size in self._db.execute(
            "select life, items, bytes from runs"
        ):
            row = self._db.execute(
                "select count(*), coalesce(sum(size), 0) from items where life = ?",
                (life,),
            ).fetchone()
            assert row == (items, size), (row, items, size)
        for table in ("items", "checkpoints"):
            rows = self._db.execute(f"select digest, size, value from {table}")  # noqa: S608 - ours
            for digest, size, kept in rows:
                assert kept is not None or self._blobs is not None
                value = kept if kept is not None else self._blobs.get(digest)  # type: ignore[union-attr]  # asserted
                assert len(value) == size
                assert hashlib.sha256(value).hexdigest() == digest

    def _apply_one(self, order: Order) -> AemeshError | None:
        """Do one order whole, or not at all."""
        self._db.execute("savepoint one")
        try:
            self._check(order.run)
            match order:
                case Commit():
                    self._commit(order)
                case Checkpoint():
                    self._checkpoint(order)
        except (UnknownRunError, RunFullError) as error:
            self._db.execute("rollback to one")
            self._db.execute("release one")
            return error
        self._db.execute("release one")
        return None

    def _commit(self, order: Commit) -> None:
        life = order.run.life
        have = set(self.known(order.run, [piece.id for piece in order.items]))
        fresh = {piece.id: piece for piece in order.items if piece.id not in have}
        count, size = self._db.execute(
            "select items, bytes from runs where life = ?", (life,)
        ).fetchone()
        more = sum(len(piece.value) for piece in fresh.values())
        if count + len(fresh) > limits.RUN_ITEMS or size + more > limits.RUN_BYTES:
            msg = f"run {order.run.key} is full"
            most = f"at most {limits.RUN_ITEMS} items and {limits.RUN_BYTES} bytes"
            raise RunFullError(msg, why=most)
        now = self._wall()
        for piece in fresh.values():
            digest, row = self._kept(piece)
            self._db.execute(
                "insert into items (life, id, title, digest, size, value, worker, at)"
                " values (?, ?, ?, ?, ?, ?, ?, ?)",
                (life, piece.id, piece.title, digest, len(piece.value), row,
                 order.worker, now),
            )  # fmt: skip
        self._db.execute(
            "update runs set items = items + ?, bytes = bytes + ? where life = ?",
            (len(fresh), more, life),
        )
        self._db.executemany(
            "delete from checkpoints where life = ? and id = ?",
            [(life, item) for item in fresh],
        )

    def _checkpoint(self, order: Checkpoint) -> None:
        life, piece = order.run.life, order.item
        if self.known(order.run, [piece.id]):
            return  # it is finished: another one of it was faster
        (count,) = self._db.execute(
            "select count(*) from checkpoints where life = ? and id != ?",
            (life, piece.id),
        ).fetchone()
        if count >= limits.RUN_CHECKPOINTS:
            msg = f"run {order.run.key} has {count} items in the middle"
            raise RunFullError(msg, why=f"at most {limits.RUN_CHECKPOINTS}")
        digest, row = self._kept(piece)
        self._db.execute(
            "insert or replace into checkpoints (life, id, digest, size, value, worker,"
            " at) values (?, ?, ?, ?, ?, ?, ?)",
            (life, piece.id, digest, len(piece.value), row, order.worker, self._wall()),
        )

    def _kept(self, piece: Piece) -> tuple[str, bytes | None]:
        """Return a value's digest and what stands in its row; a blob is written now."""
        if len(piece.value) > limits.RUN_VALUE_BYTES:
            msg = f"a value of {len(piece.value)} bytes is not kept"
            hint = "write it to a file, and return the name of that"
            most = f"at most {limits.RUN_VALUE_BYTES} bytes"
            raise RunFullError(msg, why=most, hint=hint)
        digest = hashlib.sha256(piece.value).hexdigest()
        if self._blobs is None or len(piece.value) <= limits.RUN_ROW_BYTES:
            return digest, piece.value
        self._blobs.put(digest, piece.value)
        return digest, None

    def _value(self, table: str, run: RunName, item: ItemId) -> bytes | None:
        self._check(run)
        with told():
            row = self._db.execute(
                f"select digest, value from {table} where life = ? and id = ?",  # noqa: S608 - ours
                (run.life, item),
            ).fetchone()
        if row is None:
            return None
        digest, kept = row
        value = self._blobs.get(digest) if kept is None and self._blobs else kept
        assert isinstance(value, bytes)
        if hashlib.sha256(value).hexdigest() != digest:
            msg = f"a value of run {run.key} is damaged"
            hint = "`aemesh runs rm` removes the run; it has to be computed again"
            raise LedgerError(msg, why="it is not what was written", hint=hint)
        return value

    def _check(self, run: RunName) -> None:
        """Refuse a run that is not there, or not in this life any more."""
        with told():
            row = self._db.execute(
                "select 1 from runs where life = ? and grp = ? and key = ?",
                (run.life, run.group, run.key),
            ).fetchone()
        if row is None:
            raise UnknownRunError(run.group, run.key)

    def _forget(self, group: GroupName, key: RunKey) -> None:
        for table in ("items", "checkpoints"):
            self._db.execute(
                f"delete from {table} where life ="  # noqa: S608 - ours
                " (select life from runs where grp = ? and key = ?)",
                (group, key),
            )
        self._db.execute("delete from runs where grp = ? and key = ?", (group, key))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; a disk that takes it not is a `LedgerError`."""
        try:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled it back itself
                    self._db.execute("rollback")
                raise
            self._db.execute("commit")
        except (sqlite3.Error, OSError) as exc:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise broken(exc) from exc


def _run_view(row: tuple[Any, ...]) -> RunView:
    group, key, life, title, fingerprint, total, items, size, began, used, marks = row
    return RunView(
        group=group,
        key=key,
        life=life,
        title=title,
        fingerprint=fingerprint,
        total=total,
        items=items,
        bytes=size,
        checkpoints=marks,
        created_at=began,
        used_at=used,
    )


def memory_ledger(*, wall: Callable[[], float]) -> Ledger:
    """Return a ledger that is gone with the process, for tests."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    prepare(db)
    return Ledger(db, None, None, wall=wall)


@contextmanager
def open_ledger(folder: Path, *, wall: Callable[[], float]) -> Iterator[Ledger]:
    """Open the ledger in `folder`.

    Two processes may have it open at one time.  Raises `LedgerError` if it is damaged
    or of a newer aemesh.
    """
    make_private(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        path = folder / "ledger.sqlite"
        path.touch(mode=0o600)  # SQLite gives its side files the same mode
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            prepare(db)
            ledger = Ledger(db, Blobs(folder / "blobs"), lock, wall=wall)
            ledger.sweep()
            yield ledger
        finally:
            db.close()
    except sqlite3.DatabaseError as exc:
        msg = f"cannot use the ledger in {folder}"
        hint = "move it away; runs begin anew"
        raise LedgerError(msg, why=str(exc), hint=hint) from exc
    finally:
        os.close(lock)
