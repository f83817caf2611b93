"""A group follows the load of its scheduler: a real one, without workers."""
# distributed runs on asyncio.
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from aemesh.errors import NoMasterError

if TYPE_CHECKING:
    import distributed

distributed_ = pytest.importorskip("distributed")


def test_what_a_master_did_not_hear_it_is_asked_again() -> None:
    """Shows: E6; a master that was killed meanwhile has the group follow, too."""
    from aemesh.client.following import Following  # noqa: PLC0415

    asked: list[int] = []

    def ask(number: int) -> None:
        asked.append(number)
        if len(asked) < 3:
            raise NoMasterError("/nowhere")

    async def follow() -> None:
        scheduler = distributed_.Scheduler(port=0, host="127.0.0.1", dashboard=False)
        client: distributed.Client
        async with (
            scheduler,
            distributed_.Client(
                scheduler.address, asynchronous=True, set_as_default=False
            ) as client,
        ):
            following = Following(
                client,
                ask,
                done=lambda: None,
                processes=1,
                minimum=1,
                maximum=2,
                every=0.01,
            )
            following.start()
            async with asyncio.timeout(20):
                while following._asked is None:
                    await asyncio.sleep(0.01)
            following._calls.stop()

    asyncio.run(follow())

    assert asked == [1, 1, 1]


def test_what_is_asked_while_it_is_closed_is_not_the_last_word() -> None:
    from aemesh.client.following import Following  # noqa: PLC0415

    words: list[str] = []
    asks, closes = threading.Event(), threading.Event()

    def ask(number: int) -> None:
        asks.set()
        closes.wait(0.2)  # it does not come: who closes waits for us
        words.append(str(number))

    def done() -> None:
        closes.set()
        words.append("done")

    with (
        distributed_.LocalCluster(
            n_workers=0, processes=False, dashboard_address=None
        ) as cluster,
        distributed_.Client(cluster, set_as_default=False) as client,
    ):
        following = Following(
            client,
            ask,
            done=done,
            processes=1,
            minimum=1,
            maximum=2,
            every=0.01,
        )
        following.start()
        assert asks.wait(20)
        following.close()

    assert words == ["1", "done"]
