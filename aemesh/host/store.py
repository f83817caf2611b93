"""The master's state in SQLite: groups, generations, history.

Written before it is acted on, so that a master that comes back knows what it had
promised.  Each write is one small transaction, a fraction of a millisecond with
write-ahead logging; `:memory:` serves laptop mode and tests.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.model.names import GroupName
from aemesh.model.view import EventView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aemesh.model.key import KeyId

_VERSION = 1
_SCHEMA = """
create table groups (name text primary key, engine text not null) strict;
create table workers (
    key text primary key, generation integer not null, last_group text
) strict;
create table events (
    number integer primary key autoincrement, at real not null, kind text not null,
    text text not null, worker text, grp text
) strict;
"""


class Store:
    """An open state file; made by `open_store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def groups(self) -> dict[GroupName, str]:
        """Return the engine of each group."""
        rows = self._db.execute("select name, engine from groups")
        return {GroupName(name): engine for name, engine in rows}

    def put_group(self, name: GroupName, engine: str) -> None:
        """Remember a group."""
        self._do("insert or replace into groups values (?, ?)", name, engine)

    def drop_group(self, name: GroupName) -> None:
        """Forget a group."""
        self._do("delete from groups where name = ?", name)

    def worker(self, key: KeyId) -> tuple[int, GroupName | None]:
        """Return a worker's last generation, and the group it was in or sent to."""
        row = self._db.execute(
            "select generation, last_group from workers where key = ?", (str(key),)
        ).fetchone()
        return (0, None) if row is None else (row[0], row[1])

    def put_worker(self, key: KeyId, generation: int, group: GroupName | None) -> None:
        """Remember a worker's generation and group."""
        self._do(
            "insert or replace into workers values (?, ?, ?)",
            str(key),
            generation,
            group,
        )

    def add_event(
        self, *, at: float, kind: str, text: str, worker: str | None, group: str | None
    ) -> EventView:
        """Add a line to the history; beyond `EVENTS_KEPT` the oldest go."""
        number = self._do(
            "insert into events (at, kind, text, worker, grp) values (?, ?, ?, ?, ?)",
            at,
            kind,
            text,
            worker,
            group,
        )
        if number % 100 == 0:
            self._do(
                "delete from events where number <= ?", number - limits.EVENTS_KEPT
            )
        return EventView(
            number=number, at=at, kind=kind, text=text, worker=worker, group=group
        )

    def events(self, after: int, *, most: int) -> list[EventView]:
        """Return the history from number `after` on, at most `most` lines."""
        rows = self._db.execute(
            "select number, at, kind, text, worker, grp from events"
            " where number > ? order by number limit ?",
            (after, most),
        )
        return [
            EventView(number=n, at=at, kind=kind, text=text, worker=worker, group=group)
            for n, at, kind, text, worker, group in rows
        ]

    def _do(self, statement: str, *values: object) -> int:
        with self._db:
            return self._db.execute(statement, values).lastrowid or 0


@contextmanager
def open_store(path: Path | None) -> Iterator[Store]:
    """Open the state file at `path`, or one in memory for None.

    Raises `SettingsError` when the file is damaged or of a newer aemesh.
    """
    try:
        if path is not None:
            path.touch(mode=0o600)  # SQLite gives its side files the same mode
        # Transactions are ours, by `with`.
        db = sqlite3.connect(path or ":memory:")
        try:
            _prepare(db, str(path))
            yield Store(db)
        finally:
            db.close()
    except sqlite3.DatabaseError as exc:
        msg = f"cannot use the state file {path}"
        raise SettingsError(
            msg,
            why=str(exc),
            hint="move it away; groups and history begin anew",
        ) from exc


def _prepare(db: sqlite3.Connection, path: str) -> None:
    db.execute("pragma journal_mode = wal")
    # After a power cut the last moments of history may be missing, never the file.
    db.execute("pragma synchronous = normal")
    (version,) = db.execute("pragma user_version").fetchone()
    if version > _VERSION:
        why = f"it is of version {version}, this aemesh knows {_VERSION}"
        msg = f"cannot use the state file {path}"
        raise SettingsError(msg, why=why)
    if version < _VERSION:
        db.executescript(f"begin; {_SCHEMA} pragma user_version = {_VERSION}; commit;")
