"""Doing something that must not be cut off in its midst."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def whole(do: Callable[[], Awaitable[T]], *, within: float) -> T:
    """Do it; who is cancelled meanwhile goes on for so many seconds at most.

    For what others go on to use: half a message on a stream ends the stream.
    """
    scope = trio.CancelScope(shield=True)

    async def hurry() -> None:
        try:
            await trio.sleep_forever()
        finally:
            scope.deadline = trio.current_time() + within

    async with open_crew() as crew:
        crew.start_soon(hurry)
        with scope:
            result = await do()
        await trio.lowlevel.checkpoint_if_cancelled()
        crew.cancel_scope.cancel()
    return result
