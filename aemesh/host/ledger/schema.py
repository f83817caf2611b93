"""The ledger's file: its tables, and what SQLite says of it in our words."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aemesh.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION = 1
# `value` is null where the value is a blob; `life` numbers are never used again.
_TABLES = """
create table runs (
    life integer primary key autoincrement, grp text not null, key text not null,
    fingerprint text not null, title text not null, total integer not null,
    items integer not null default 0, bytes integer not null default 0,
    created_at real not null, used_at real not null, unique (grp, key)
) strict;
create table items (
    number integer primary key autoincrement, life integer not null, id text not null,
    title text not null, digest text not null, size integer not null, value blob,
    worker text not null, at real not null, unique (life, id)
) strict;
create table checkpoints (
    life integer not null, id text not null, digest text not null,
    size integer not null, value blob, worker text not null, at real not null,
    primary key (life, id)
) strict;
"""
# Whether a row names a blob, and what a run's states take; older ledgers lack them.
_INDEXES = """
create index if not exists items_blob on items (digest) where value is null;
create index if not exists checkpoints_blob on checkpoints (digest)
    where value is null;
create index if not exists checkpoints_size on checkpoints (life, size);
"""


@contextmanager
def told() -> Iterator[None]:
    """Tell what SQLite cannot read as ours."""
    try:
        yield
    except sqlite3.Error as exc:
        raise broken(exc) from exc


def broken(exc: Exception) -> LedgerError:
    """Return an error of SQLite's or the disk's as ours."""
    return LedgerError("the master cannot use its ledger", why=str(exc))


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables and indexes that are not there.

    Raises `LedgerError` for those of a newer aemesh.
    """
    db.execute("pragma auto_vacuum = full")  # a run that is removed gives its room back
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute("begin immediate")  # another process may be at it, too
    (version,) = db.execute("pragma user_version").fetchone()
    if version > _VERSION:
        why = f"it is of version {version}, this aemesh knows {_VERSION}"
        msg = "cannot use the ledger"
        raise LedgerError(msg, why=why)
    if version < _VERSION:
        for table in _TABLES.split(";"):
            db.execute(table)
        db.execute(f"pragma user_version = {_VERSION}")
    for index in _INDEXES.split(";"):
        db.execute(index)
    db.execute("commit")
