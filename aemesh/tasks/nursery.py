"""A nursery whose block raises what went wrong, not a group around it.

On trio an error in the body of a block that owns a nursery leaves as an
ExceptionGroup, so `except RefusedError` around such a block would miss it.  Our
`open_…` blocks use this one: a single error leaves as itself; several stay a group.
See docs/decisions/0002-exceptions-leave-as-themselves.md.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_crew() -> AsyncIterator[trio.Nursery]:
    """Open a nursery; an error that leaves its block alone leaves unwrapped."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        alone = _the_one(group)
        if alone is None:
            raise
        # The group's traceback says nothing that the error's own does not.
        raise alone from alone.__cause__


def _the_one(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the only error in a group that is not a cancellation, if it is one."""
    real = group.split(trio.Cancelled)[1]
    if real is None or len(real.exceptions) != 1:
        return None
    (error,) = real.exceptions
    return _the_one(error) if isinstance(error, BaseExceptionGroup) else error
