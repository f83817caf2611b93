"""Finding the one error of ours in what an `async with` block let out.

A block that owns a nursery wraps what leaves it in an `ExceptionGroup`; people
and programs want the sentence inside.
"""

from __future__ import annotations

from aemesh.errors import AemeshError


def blamed(error: BaseException) -> AemeshError | None:
    """Return the first error of ours in `error`; None if anything else is in it."""
    if isinstance(error, AemeshError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [blamed(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return None
