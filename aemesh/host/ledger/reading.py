"""What a ledger says: its runs, what is committed of one, values and states.

Nothing is read for a run in another life than the one that is asked for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.errors import LedgerError, UnknownRunError
from aemesh.host.ledger.schema import told
from aemesh.model.run import ItemView, RunView

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from aemesh.host.ledger.files import LedgerFiles
    from aemesh.model.names import GroupName
    from aemesh.model.run import ItemId, RunKey, RunName

# Small values that are read in one go, by the same reason as `RUN_PAGE_BYTES`.
_PAGE = 500
_RUN = (
    "select grp, key, life, title, fingerprint, total, items, bytes, created_at,"
    " used_at, (select count(*) from checkpoints where life = runs.life) from runs"
)


class LedgerReader:
    """The half of a ledger that changes nothing."""

    def __init__(
        self,
        open_: Callable[[], LedgerFiles],
        *,
        is_on_disk: bool,
        wall: Callable[[], float],
    ) -> None:
        self.is_on_disk = is_on_disk  # asking it may take its time
        self._open = open_
        self._opened: LedgerFiles | None = None
        self._wall = wall

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        place = "on the disk" if self.is_on_disk else "in memory"
        return f"<{type(self).__name__} {place}>"

    def open(self) -> None:
        """Open its files, if they are not; all else does so, too.

        Raises `LedgerError` if they are damaged or of a newer aemesh.
        """
        if self._opened is None:
            self._opened = self._open()

    def close(self) -> None:
        """Close its files, if they are open."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _files(self) -> LedgerFiles:
        self.open()
        assert self._opened is not None
        return self._opened

    @property
    def _db(self) -> sqlite3.Connection:
        return self._files.db

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

    def known(self, run: RunName, ids: Sequence[ItemId]) -> list[ItemId]:
        """Return those of these items that are committed."""
        self._check(run)
        found = {item for (item,) in self._of("items", "id", run, ids)}
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
        return self.values(run, [item])[0]

    def values(self, run: RunName, items: Sequence[ItemId]) -> list[bytes | None]:
        """Return values of the first of these items: one, or some that are small."""
        self._check(run)
        sizes = dict(self._of("items", "id, size", run, items[:_PAGE]))
        page, size = list[str](), 0
        for item in items[:_PAGE]:
            size += sizes.get(item, 0)
            if page and size > limits.RUN_PAGE_BYTES:
                break
            page.append(item)
        rows = self._of("items", "id, digest, value", run, page)
        found = {item: self._proved(run, *kept) for item, *kept in rows}
        return [found.get(item) for item in page]

    def state(self, run: RunName, item: ItemId) -> bytes | None:
        """Return the last checkpoint of an item that is in the middle, or None."""
        self._check(run)
        former = None
        while True:
            rows = self._of("checkpoints", "digest, value", run, [item])
            try:
                return self._proved(run, *rows[0]) if rows else None
            except LedgerError:
                if rows == former:
                    raise
                former = rows  # another process may have put the next in its place

    def _of(
        self, table: str, columns: str, run: RunName, ids: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(ids))
        statement = f"select {columns} from {table} where life = ? and id in ({marks})"  # noqa: S608 - ours
        with told():
            return self._db.execute(statement, (run.life, *ids)).fetchall()

    def _proved(self, run: RunName, digest: str, kept: bytes | None) -> bytes:
        """Return a value, which is in its row or a blob, if it is what was written."""
        value = self._blob(digest) if kept is None else kept
        if hashlib.sha256(value).hexdigest() != digest:
            msg = f"a value of run {run.key} is damaged"
            hint = "`aemesh runs rm` removes the run; it has to be computed again"
            raise LedgerError(msg, why="it is not what was written", hint=hint)
        return value

    def _blob(self, digest: str) -> bytes:
        blobs = self._files.blobs
        assert blobs is not None, "in memory all values stand in rows"
        return blobs.get(digest)

    def _check(self, run: RunName) -> None:
        """Refuse a run that is not there, or not in this life any more."""
        with told():
            row = self._db.execute(
                "select 1 from runs where life = ? and grp = ? and key = ?",
                (run.life, run.group, run.key),
            ).fetchone()
        if row is None:
            raise UnknownRunError(run.group, run.key)


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
