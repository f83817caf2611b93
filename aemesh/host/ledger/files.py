"""The files of a ledger while it is open: SQLite's, the blobs, and the lock."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aemesh.errors import LedgerError
from aemesh.host.folders import make_private
from aemesh.host.ledger.blobs import Blobs
from aemesh.host.ledger.schema import prepare

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class LedgerFiles:
    """What an open ledger has; `blobs` and `lock` are None in memory."""

    db: sqlite3.Connection
    blobs: Blobs | None = None
    lock: int | None = None
    loose: set[str] = field(default_factory=set)  # blobs that a row has let go

    def alone(self) -> bool:
        """Whether no other process has it open; none comes until `share`."""
        if self.lock is None:
            return True
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.share()  # asking for more has cost us what we had: flock(2)
            return False
        return True

    def share(self) -> None:
        """Let others have it open, too."""
        if self.lock is not None:
            fcntl.flock(self.lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Close all of it; a second call does nothing."""
        self.db.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def open_files(folder: Path) -> LedgerFiles:
    """Open the ledger in a folder; raises `LedgerError` if it cannot be used."""
    make_private(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        path = folder / "ledger.sqlite"
        path.touch(mode=0o600)  # SQLite gives its side files the same mode
        db = _connect(str(path))
        return LedgerFiles(db, Blobs(folder / "blobs"), lock)
    except BaseException as exc:
        os.close(lock)
        if isinstance(exc, (sqlite3.Error, OSError)):
            msg = f"cannot use the ledger in {folder}"
            hint = "move it away; runs begin anew"
            raise LedgerError(msg, why=str(exc), hint=hint) from exc
        raise


def memory_files() -> LedgerFiles:
    """Return a ledger's files without files."""
    return LedgerFiles(_connect(":memory:"))


def _connect(path: str) -> sqlite3.Connection:
    # Transactions are ours; one thread at a time is at it, not always the same.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db
