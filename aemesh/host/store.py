"""The master's state in SQLite: groups, generations, history.

Written before it is acted on, so that a master that comes back knows what it had
promised.  Each write is one small transaction, a fraction of a millisecond with
write-ahead logging; `:memory:` serves laptop mode and tests.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.model.address import Address
from aemesh.model.group import Demand
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.model.view import EventView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What takes a file from each version to the next; a new one begins at the first.
# Nothing here is ever changed: files of all these versions are about.
_STEPS = (
    """
create table groups (name text primary key, engine text not null) strict;
create table workers (
    key text primary key, generation integer not null, last_group text
) strict;
create table events (
    number integer primary key autoincrement, at real not null, kind text not null,
    text text not null, worker text, grp text
) strict;
""",
    """
alter table groups add column least integer not null default 1;
alter table groups add column most integer;
alter table groups add column weight integer not null default 1;
alter table groups add column wait_after real not null default 30.0;
alter table groups add column require text not null default '';
alter table workers add column pinned text;
""",
    """
alter table workers add column drained integer not null default 0;
""",
    """
alter table groups add column keeper text;
""",
    """
alter table workers add column aside_until real not null default 0;
alter table workers add column aside_why text not null default '';
alter table workers add column aside_times integer not null default 0;
""",
    """
alter table groups add column preload text not null default '[]';
alter table groups add column settings text not null default '{}';
""",
)


class Store:
    """An open state file; made by `open_store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def groups(self) -> dict[GroupName, str]:
        """Return the engine of each group."""
        rows = self._db.execute("select name, engine from groups")
        return {GroupName(name): engine for name, engine in rows}

    def put_group(self, name: GroupName, engine: str) -> None:
        """Remember a group; one that is there keeps its demand."""
        self._do(
            "insert into groups (name, engine) values (?, ?)"
            " on conflict (name) do update set engine = excluded.engine",
            name,
            engine,
        )

    def demand(self, name: GroupName) -> Demand:
        """Return what a group wants; what a new one wants if it is not there."""
        row = self._db.execute(
            "select least, most, weight, wait_after, require, preload, settings"
            " from groups where name = ?",
            (name,),
        ).fetchone()
        if row is None:
            return Demand()
        least, most, weight, wait_after, require, preload, settings = row
        return Demand(
            min=least,
            max=most,
            weight=weight,
            wait_after=wait_after,
            require=require,
            preload=tuple(json.loads(preload)),
            settings=json.loads(settings),
        )

    def put_demand(self, name: GroupName, demand: Demand) -> None:
        """Remember what a group that is there wants."""
        self._do(
            "update groups set least = ?, most = ?, weight = ?, wait_after = ?,"
            " require = ?, preload = ?, settings = ? where name = ?",
            demand.min,
            demand.max,
            demand.weight,
            demand.wait_after,
            demand.require,
            json.dumps(demand.preload),
            json.dumps(dict(demand.settings)),
            name,
        )

    def drop_group(self, name: GroupName) -> None:
        """Forget a group."""
        self._do("delete from groups where name = ?", name)

    def inherited(self) -> dict[GroupName, tuple[Address, KeyId]]:
        """Return the keeper of each group whose head a former master left."""
        rows = self._db.execute(
            "select name, keeper from groups where keeper is not null"
        )
        return {GroupName(name): _place(keeper) for name, keeper in rows}

    def put_inherited(
        self, name: GroupName, keeper: tuple[Address, KeyId] | None
    ) -> None:
        """Remember where a group's head is that we inherited; None: it is ours."""
        place = None if keeper is None else f"{keeper[0]} {keeper[1]}"
        self._do("update groups set keeper = ? where name = ?", place, name)

    def worker(self, key: KeyId) -> tuple[int, GroupName | None]:
        """Return a worker's last generation, and the group it was in or sent to."""
        row = self._db.execute(
            "select generation, last_group from workers where key = ?", (str(key),)
        ).fetchone()
        return (0, None) if row is None else (row[0], row[1])

    def put_worker(self, key: KeyId, generation: int, group: GroupName | None) -> None:
        """Remember a worker's generation and group."""
        self._do(
            "insert into workers (key, generation, last_group) values (?, ?, ?)"
            " on conflict (key) do update set generation = excluded.generation,"
            " last_group = excluded.last_group",
            str(key),
            generation,
            group,
        )

    def pinned(self, key: KeyId) -> GroupName | None:
        """Return the group that a person moved this worker to, if that still holds."""
        row = self._db.execute(
            "select pinned from workers where key = ?", (str(key),)
        ).fetchone()
        return None if row is None else row[0]

    def pin(self, key: KeyId, group: GroupName | None) -> None:
        """Remember that a worker stays in this group, or that it may be shared."""
        self._do(
            "insert into workers (key, generation, pinned) values (?, 0, ?)"
            " on conflict (key) do update set pinned = excluded.pinned",
            str(key),
            group,
        )

    def is_drained(self, key: KeyId) -> bool:
        """Whether a person took this worker out until it is taken back."""
        row = self._db.execute(
            "select drained from workers where key = ?", (str(key),)
        ).fetchone()
        return row is not None and bool(row[0])

    def put_drained(self, key: KeyId, *, drained: bool) -> None:
        """Remember that a worker serves nobody, or that it may again."""
        self._do(
            "insert into workers (key, generation, drained) values (?, 0, ?)"
            " on conflict (key) do update set drained = excluded.drained",
            str(key),
            int(drained),
        )

    def aside(self, key: KeyId) -> tuple[float, str, int]:
        """Return until when a worker is set aside (since 1970), why, and how often."""
        row = self._db.execute(
            "select aside_until, aside_why, aside_times from workers where key = ?",
            (str(key),),
        ).fetchone()
        return (0.0, "", 0) if row is None else (row[0], row[1], row[2])

    def put_aside(self, key: KeyId, until: float, why: str, times: int) -> None:
        """Remember that a worker is set aside; `until` 0.0: no more."""
        self._do(
            "insert into workers (key, generation, aside_until, aside_why, aside_times)"
            " values (?, 0, ?, ?, ?) on conflict (key) do update set"
            " aside_until = excluded.aside_until, aside_why = excluded.aside_why,"
            " aside_times = excluded.aside_times",
            str(key),
            until,
            why,
            times,
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
        return list(map(_event, rows))

    def group_events(self, group: GroupName, *, most: int) -> list[EventView]:
        """Return the latest of one group's history, at most `most` lines."""
        rows = self._db.execute(
            "select number, at, kind, text, worker, grp from events"
            " where grp = ? order by number desc limit ?",
            (group, most),
        )
        return list(map(_event, rows))[::-1]

    def _do(self, statement: str, *values: object) -> int:
        with self._db:
            return self._db.execute(statement, values).lastrowid or 0


def _event(row: tuple[Any, ...]) -> EventView:
    n, at, kind, text, worker, group = row
    return EventView(number=n, at=at, kind=kind, text=text, worker=worker, group=group)


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


def _place(keeper: str) -> tuple[Address, KeyId]:
    address, _, key = keeper.partition(" ")
    return Address.parse_untrusted(address), KeyId.parse_untrusted(key)


def _prepare(db: sqlite3.Connection, path: str) -> None:
    db.execute("pragma journal_mode = wal")
    # After a power cut the last moments of history may be missing, never the file.
    db.execute("pragma synchronous = normal")
    (version,) = db.execute("pragma user_version").fetchone()
    if version > len(_STEPS):
        why = f"it is of version {version}, this aemesh knows {len(_STEPS)}"
        msg = f"cannot use the state file {path}"
        raise SettingsError(msg, why=why)
    for number, step in enumerate(_STEPS[version:], start=version + 1):
        db.executescript(f"begin; {step} pragma user_version = {number}; commit;")
