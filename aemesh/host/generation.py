"""The highest generation that this worker was ever held in, kept over restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.host.wholefile import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "generation"
_DIGITS = 18


def read_generation(folder: Path) -> int:
    """Return the last generation; 0 if there was none, or the file is damaged.

    After damage the master's own count, which is higher, makes up for it.
    """
    try:
        text = (folder / _FILE).read_text("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdigit() and len(text) <= _DIGITS else 0


def write_generation(folder: Path, generation: int) -> None:
    """Remember a generation, before it is acted on."""
    write_whole(folder / _FILE, str(generation).encode())
