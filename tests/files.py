"""A process that may have few files open, for tests of what runs out of them."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aemesh.host import openfiles

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = resource.RLIMIT_NOFILE


def open_now() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def few_files(*, left: int) -> Iterator[int]:
    """Grant ourselves that many more files; gives the limit.  All is undone."""
    usual, most = resource.getrlimit(_FILES)
    few = open_now() + left
    known = openfiles._Usual.number
    resource.setrlimit(_FILES, (few, most))
    try:
        yield few
    finally:
        resource.setrlimit(_FILES, (usual, most))
        openfiles._Usual.number = known
