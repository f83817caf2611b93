"""`Group.map` over a real Dask in this process, without a key."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from aemesh.client.group import Group
from aemesh.client.map import Results, _title, start_map
from aemesh.client.mapdriver import Driver, Orders, _leaving
from aemesh.client.mapwork import Work
from aemesh.errors import (
    EngineError,
    GroupIncompleteError,
    NoMasterError,
    UsageError,
)
from aemesh.model.view import ConnectView
from tests.client.local_dask import local_cluster

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


class LocalGroup:
    """A group whose engine is in this process."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.closed = False

    def client(self, **options: Any) -> Any:
        return distributed.Client(self._address, **options)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(2) as cluster:
        yield cluster.scheduler_address


def mapped(
    address: str, function: Any, items: Any, *, retries: int = 0, connect: Any = None
) -> Results[Any]:
    return start_map(
        "A",
        function,
        items,
        connect=connect or (lambda: LocalGroup(address)),
        runs=None,  # type: ignore[arg-type]  # without a key none is asked
        key=None,
        retries=retries,
        fresh=False,
    )


def test_results_come_in_the_order_of_the_items(address: str, tmp_path: Path) -> None:
    """Shows: E6."""
    mark = tmp_path / "the last is done"

    def slow_first(number: int) -> int:
        if number == 2999:
            mark.touch()
        while number == 0 and not mark.exists():
            threading.Event().wait(0.001)
        return number * number

    results = mapped(address, slow_first, range(3000))

    assert list(results) == [number * number for number in range(3000)]
    assert len(results) == 3000
    assert list(mapped(address, slow_first, [])) == []


def test_an_item_that_raises_does_so_in_its_turn_and_the_rest_goes_on(
    address: str,
) -> None:
    def odd(number: int) -> int:
        if number % 2:
            msg = f"{number} is odd"
            raise ValueError(msg)
        return number

    results = mapped(address, odd, range(5))
    seen: list[object] = []
    while len(seen) < 5:
        try:
            seen.append(next(results))
        except ValueError as error:
            seen.append(str(error))
            (note,) = error.__notes__
            assert note.startswith(f"item {len(seen) - 1} of the map raised this on ")
            assert "in odd" in note
    assert seen == [0, "1 is odd", 2, "3 is odd", 4]
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_an_item_that_says_stop_ends_no_loop(
    address: str, kind: type[Exception]
) -> None:
    def stop(number: int) -> int:
        if number == 1:
            raise kind(7)
        return number

    results = mapped(address, stop, range(3))

    assert next(results) == 0
    with pytest.raises(RuntimeError, match="item 1 raised Stop") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, kind)
    assert list(results) == [2]


def test_an_item_with_much_in_it_is_no_reason_for_advice(address: str) -> None:
    assert list(mapped(address, len, [bytes(12 << 20)])) == [12 << 20]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ({"key": b"a"}, "expected a text, got bytes"),
        ({"key": 5}, "key 5: expected a text, got int"),
        ({"retries": None}, "retries None: expected a whole number"),
        ({"retries": -1}, "retries -1: expected a whole number"),
    ],
)
def test_a_wrong_word_is_told_at_once(word: dict[str, Any], said: str) -> None:
    words = {"key": None, "retries": 0, "fresh": False, **word}
    with pytest.raises(UsageError, match=said):
        start_map("A", abs, [1], connect=LocalGroup, runs=None, **words)  # type: ignore[arg-type]  # none is asked


class Mute:
    """An item that cannot be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_an_item_that_cannot_be_shown_is_computed(address: str) -> None:
    assert list(mapped(address, bool, [Mute()])) == [True]
    assert _title(Mute()) == "<Mute>"
    assert _title("é" * 100) == "'" + r"\xe9" * 19 + r"\xe"


def test_threads_that_read_one_map_get_each_result_once(address: str) -> None:
    results = mapped(address, abs, range(2000))
    read: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: read.append(list(results))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(read) == 4
    assert sorted(n for some in read for n in some) == list(range(2000))
    assert all(some == sorted(some) for some in read)


def test_an_item_that_raised_is_tried_again(address: str, tmp_path: Path) -> None:
    def flaky(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 3 and not mark.exists():
            mark.touch()
            msg = "not yet"
            raise OSError(msg)
        return number

    assert list(mapped(address, flaky, range(5), retries=1)) == [0, 1, 2, 3, 4]


def test_a_function_with_much_in_it_is_sent_as_a_task(address: str) -> None:
    table = bytes(range(256)) * (48 << 10)  # of which Dask alone would warn

    def look(number: int) -> int:
        return table[number]

    assert list(mapped(address, look, range(300))) == [n % 256 for n in range(300)]


def test_who_closes_early_ends_what_runs(address: str, tmp_path: Path) -> None:
    log = tmp_path / "begun"
    log.touch()

    def slow(number: int) -> int:
        with log.open("a") as file:
            file.write(f"{number}\n")
        threading.Event().wait(0.02)
        return number

    with mapped(address, slow, range(10_000)) as results:
        assert next(results) == 0

    assert list(mapped(address, abs, range(10))) == list(range(10))
    begun = log.read_text()
    assert list(mapped(address, abs, range(10))) == list(range(10))
    assert log.read_text() == begun
    assert 1 <= begun.count("\n") < 10_000
    assert not any(one.name == "aemesh map" for one in threading.enumerate())


def test_a_closed_map_says_so_to_who_asks_or_waits(
    address: str, tmp_path: Path
) -> None:
    begun, over = tmp_path / "begun", tmp_path / "over"
    raised: list[str] = []

    def endless(number: int) -> int:
        begun.touch()
        while not over.exists():
            threading.Event().wait(0.01)
        return number

    def read() -> None:
        try:
            next(results)
        except UsageError as error:
            raised.append(str(error))

    with mapped(address, endless, [0, 1]) as results:
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while not begun.exists():
            threading.Event().wait(0.01)
    reader.join(20)
    over.touch()

    assert raised == ["this result will not come: the map was closed"]
    with pytest.raises(UsageError):
        next(results)


def test_a_map_that_waits_for_its_group_is_closed_at_once(address: str) -> None:
    asked, answer, left = threading.Event(), threading.Event(), threading.Event()

    class Seen(LocalGroup):
        def close(self) -> None:
            left.set()

    def connect() -> LocalGroup:
        asked.set()
        answer.wait()
        return Seen(address)

    results = mapped(address, abs, [-1], connect=connect)
    asked.wait()
    results.close()

    assert not answer.is_set()
    with pytest.raises(UsageError):
        next(results)
    answer.set()
    assert left.wait(20)


def test_a_map_calls_for_the_first_worker() -> None:
    """Who follows the load looks at what the scheduler has, so it must have some."""
    with local_cluster(0) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="20ms")

        with mapped(cluster.scheduler_address, abs, range(-3, 0)) as results:
            assert list(results) == [3, 2, 1]


def test_a_client_that_gives_up_connecting_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("distributed.client")

    class Client:
        def close(self) -> None:
            for error in (CancelledError(), ZeroDivisionError()):
                log.error("it went wrong", exc_info=error)

    with _leaving(Client()):
        pass

    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert not log.filters


def test_that_there_is_no_worker_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(lambda: LocalGroup(""), Work(1, retries=0), Orders([], [], []), b"")

    for now in (0.5, 9.5, 10.5, 11.5):
        driver._tell_of_drought(now)
        assert ("no worker" in caplog.text) == (now > 10)
    assert caplog.text.count("no worker") == 1


def test_an_item_beside_one_that_kills_its_process_is_innocent(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "it had another one behind it"

    def kills(number: int) -> int:
        tasks = distributed.get_worker().state.tasks
        while number == 0 and len(tasks) < 2 and not mark.exists():
            threading.Event().wait(0.01)
        mark.touch()
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    scheduler = "distributed.scheduler"
    wishes = {
        f"{scheduler}.allowed-failures": 0,
        f"{scheduler}.worker-saturation": math.inf,
    }
    with (
        dask.config.set(wishes),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
    ):
        results = mapped(cluster.scheduler_address, kills, range(3))
        with pytest.raises(distributed.KilledWorker):
            next(results)
        assert list(results) == [1, 2]


def test_a_map_does_not_wait_for_members() -> None:
    asked: list[dict[str, object]] = []

    class Mesh:
        folder = Path("/nowhere/master")
        runs = None

        def connect(self, name: str, **options: object) -> ConnectView:
            asked.append({"name": name, **options})
            raise ZeroDivisionError

    view = ConnectView(group="A", engine="dask", env={})
    group = Group(Mesh(), view)  # type: ignore[arg-type]  # as much as it takes

    with pytest.raises(ZeroDivisionError):
        list(group.map(abs, [1]))
    assert asked == [{"name": "A", "members": False}]


def test_a_group_that_is_not_ready_is_waited_for(address: str) -> None:
    errors = iter([EngineError("x"), GroupIncompleteError("x"), NoMasterError("x")])

    def connect() -> LocalGroup:
        for error in errors:
            raise error
        return LocalGroup(address)

    assert list(mapped(address, abs, [-1], connect=connect)) == [1]


def test_what_cannot_be_waited_for_is_raised(address: str) -> None:
    def connect() -> LocalGroup:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(mapped(address, abs, [-1], connect=connect))


def test_items_with_much_in_them_go_in_small_batches() -> None:
    orders = Orders([bytes(1 << 20)] * 10, [], [])

    assert orders.fitting(list(range(10))) == 4
    assert Orders([bytes(9 << 20)] * 2, [], []).fitting([0, 1]) == 1
    assert orders.fitting([]) == 0
