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

import hashlib
import sqlite3
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    LedgerError,
    OtherWorkError,
    RunFullError,
    UnknownRunError,
)
from aemesh.host.ledger.files import memory_files, open_files
from aemesh.host.ledger.litter import remove_unnamed, sweep
from aemesh.host.ledger.reading import LedgerReader
from aemesh.host.ledger.schema import broken
from aemesh.model.run import Checkpoint, Commit, Piece, RunView, rule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from aemesh.model.names import GroupName
    from aemesh.model.run import ItemId, Order, RunKey, RunName


class Ledger(LedgerReader):
    """An open ledger; made by `open_ledger`, used by one thread at a time."""

    def open(self) -> None:
        """Open its files, and remove what a killed process left among them."""
        if self._opened is None:
            super().open()
            self.sweep()

    # --- runs ---

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
                is_other = rule_of(row[0]) != rule_of(fingerprint)
                raise OtherWorkError(key, row[1], title, is_other_rule=is_other)
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
        it counts, and all are told.  Files of states that were replaced go after it.
        """
        try:
            with self._writing():
                told = [self._apply_one(order) for order in orders]
        except LedgerError as error:
            return [error] * len(orders)
        self._remove_loose()
        return told

    def sweep(self) -> None:
        """Remove files that no row names, unless another process has us open too."""
        sweep(self._files)

    def _remove_loose(self) -> None:
        """Remove the files of states that are gone, where no other row names them."""
        loose, self._files.loose = self._files.loose, set()
        if loose:
            with suppress(LedgerError), self._writing():  # the rest is for the sweep
                remove_unnamed(self._files, loose)

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
                value = kept if kept is not None else self._blob(digest)
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
        if not fresh:
            return
        more = sum(len(piece.value) for piece in fresh.values())
        self._drop_states(order.run, list(fresh))
        self._check_room(order.run, items=len(fresh), size=more)
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

    def _checkpoint(self, order: Checkpoint) -> None:
        life, piece = order.run.life, order.item
        if self.known(order.run, [piece.id]):
            return  # it is finished: another one of it was faster
        self._drop_states(order.run, [piece.id])
        self._check_room(order.run, states=1, size=len(piece.value))
        digest, row = self._kept(piece)
        self._db.execute(
            "insert into checkpoints (life, id, digest, size, value, worker, at)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            (life, piece.id, digest, len(piece.value), row, order.worker, self._wall()),
        )

    def _drop_states(self, run: RunName, items: Sequence[ItemId]) -> None:
        """Remove what items have in the middle, and note the files of that."""
        marks = ",".join("?" * len(items))
        which = f"from checkpoints where life = ? and id in ({marks})"
        blobs = self._db.execute(
            f"select digest {which} and value is null",
            (run.life, *items),
        )
        self._files.loose.update(digest for (digest,) in blobs)
        self._db.execute(f"delete {which}", (run.life, *items))

    def _check_room(
        self, run: RunName, *, size: int, items: int = 0, states: int = 0
    ) -> None:
        """Raise `RunFullError` if a run has no room for so much more."""
        done, kept = self._db.execute(
            "select items, bytes from runs where life = ?", (run.life,)
        ).fetchone()
        begun, held = self._db.execute(
            "select count(*), coalesce(sum(size), 0) from checkpoints where life = ?",
            (run.life,),
        ).fetchone()
        if begun + states > limits.RUN_CHECKPOINTS:
            msg = f"run {run.key} has {begun} items in the middle"
            raise RunFullError(msg, why=f"at most {limits.RUN_CHECKPOINTS}")
        if done + items > limits.RUN_ITEMS or kept + held + size > limits.RUN_BYTES:
            msg = f"run {run.key} is full"
            most = f"at most {limits.RUN_ITEMS} items and {limits.RUN_BYTES} bytes"
            raise RunFullError(msg, why=most)

    def _kept(self, piece: Piece) -> tuple[str, bytes | None]:
        """Return a value's digest and what stands in its row; a blob is written now."""
        if len(piece.value) > limits.RUN_VALUE_BYTES:
            msg = f"a value of {len(piece.value)} bytes is not kept"
            hint = "write it to a file, and return the name of that"
            most = f"at most {limits.RUN_VALUE_BYTES} bytes"
            raise RunFullError(msg, why=most, hint=hint)
        digest = hashlib.sha256(piece.value).hexdigest()
        blobs = self._files.blobs
        if blobs is None or len(piece.value) <= limits.RUN_ROW_BYTES:
            return digest, piece.value
        blobs.put(digest, piece.value)
        return digest, None

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


def memory_ledger(*, wall: Callable[[], float]) -> Ledger:
    """Return a ledger that is gone with the process, for tests."""
    return Ledger(memory_files, is_on_disk=False, wall=wall)


@contextmanager
def open_ledger(
    folder: Path, *, wall: Callable[[], float], lazily: bool = False
) -> Iterator[Ledger]:
    """Open the ledger in `folder`; `lazily` when it is first asked for something.

    Two processes may have it open at one time.  Raises `LedgerError` if it is damaged
    or of a newer aemesh.
    """
    ledger = Ledger(partial(open_files, folder), is_on_disk=True, wall=wall)
    try:
        if not lazily:
            ledger.open()
        yield ledger
    finally:
        ledger.close()
