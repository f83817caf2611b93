"""Files of values that no row of the ledger names: they are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from aemesh.host.ledger.files import LedgerFiles

_TABLES = ("items", "checkpoints")


def sweep(files: LedgerFiles) -> None:
    """Remove all of them, unless another process has the ledger open, too."""
    if files.blobs is None or not files.alone():
        return
    try:
        used = {
            row[0]
            for table in _TABLES
            for row in files.db.execute(
                f"select digest from {table} where value is null"  # noqa: S608 - ours
            )
        }
        for name in list(files.blobs.names()):
            if name not in used:
                files.blobs.drop(name)
    finally:
        files.share()


def remove_unnamed(files: LedgerFiles, digests: Iterable[str]) -> None:
    """Remove those of these that no row names; within a transaction that writes.

    Whoever else has the ledger open puts a file and its row into one transaction, so
    that no row comes to name one of these meanwhile.
    """
    for digest in digests:
        if files.blobs is not None and not _is_named(files.db, digest):
            files.blobs.drop(digest)


def _is_named(db: sqlite3.Connection, digest: str) -> bool:
    return any(
        db.execute(
            f"select 1 from {table} where digest = ? and value is null limit 1",  # noqa: S608 - ours
            (digest,),
        ).fetchone()
        for table in _TABLES
    )
