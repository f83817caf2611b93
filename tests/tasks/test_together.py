"""Who asks during a turn shares the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing

from aemesh.tasks.together import Together


class Doubler:
    """Doubles numbers, when it may; `turns` are those that began."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.may = trio.Event()

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.turns.append(list(keys))
        await self.may.wait()
        if 13 in keys:
            raise KeyError(13)
        return {key: 2 * key for key in keys}


async def test_those_who_ask_during_a_turn_share_the_next_one(nursery: trio.Nursery):
    doubler, told = Doubler(), dict[int, int]()
    together = Together(doubler)

    async def ask(key: int) -> None:
        told[key] = await together.ask(key)

    nursery.start_soon(ask, 1)
    await trio.testing.wait_all_tasks_blocked()
    for key in (2, 3, 4):
        nursery.start_soon(ask, key)
    await trio.testing.wait_all_tasks_blocked()
    assert doubler.turns == [[1]]

    doubler.may.set()
    await trio.testing.wait_all_tasks_blocked()

    assert [sorted(turn) for turn in doubler.turns] == [[1], [2, 3, 4]]
    assert told == {1: 2, 2: 4, 3: 6, 4: 8}


async def test_who_is_cancelled_in_its_turn_takes_it_from_no_other():
    doubler, told, scope = Doubler(), list[int](), trio.CancelScope()
    together = Together(doubler)

    async def leave() -> None:
        with scope:
            await together.ask(1)

    async def stay() -> None:
        told.append(await together.ask(2))

    async with trio.open_nursery() as both:
        both.start_soon(leave)
        both.start_soon(stay)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        doubler.may.set()

    assert told == [4]


async def test_an_error_is_told_and_the_next_turn_goes_on():
    doubler = Doubler()
    doubler.may.set()
    together = Together(doubler)

    with pytest.raises(KeyError, match="13"):
        await together.ask(13)

    assert await together.ask(3) == 6
