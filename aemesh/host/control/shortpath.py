"""A name of a unix socket that fits its address.

It imports nothing but the standard library: jobs use it too.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


# A socket's address holds 108 bytes (104 on macOS); state directories in deep
# temporary folders are longer.  Linux reaches any folder that is open under a
# short name of its own; elsewhere the path itself must do.
@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name of `path` that fits a socket's address, while the block lasts."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}"
        yield f"{short}/{path.name}" if Path(short).exists() else str(path)
    finally:
        os.close(folder)
