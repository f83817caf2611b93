"""A process that may have few files open, for tests of what runs out of them."""

from __future__ import annotations

import gc
import os
import resource
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aemesh.host import openfiles

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = resource.RLIMIT_NOFILE


def open_now() -> int:
    """How many files this process has open, without those that nobody has any more."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_files(*, but: int = 0) -> Iterator[None]:
    """Take all files that we may have open, but so many."""
    with few_files(left=20 + but):
        taken: list[int] = []
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(but):
            os.close(taken.pop())
        yield
        for fd in taken:
            os.close(fd)


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
