"""An executor over a real Dask in this process; what CPython's own tests ask of one.

As of `test_concurrent_futures`: submit, map, shutdown, as_completed, wait.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import pickle
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.local_dask import local_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aemesh.client.executor import GroupExecutor

distributed = pytest.importorskip("distributed")

WITHIN = 30.0  # a hang is a failure


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(2, protocol="tcp://") as cluster:
        yield cluster.scheduler_address


def opened(address: str, **options: Any) -> GroupExecutor:
    from aemesh.client.executor import GroupExecutor  # noqa: PLC0415

    client = distributed.Client(address, set_as_default=False)
    return GroupExecutor(client, **options)


@pytest.fixture
def executor(address: str) -> Iterator[GroupExecutor]:
    with opened(address) as executor:
        yield executor


class Gate:
    """Two calls that run until it is opened; workers of threads can see it."""

    begun = threading.Semaphore(0)
    opened = threading.Event()

    @staticmethod
    def reset() -> None:
        Gate.begun, Gate.opened = threading.Semaphore(0), threading.Event()

    @staticmethod
    def pass_through(number: int = 0) -> int:
        Gate.begun.release()
        assert Gate.opened.wait(WITHIN)
        return number

    @staticmethod
    def fill(executor: GroupExecutor) -> list[cf.Future[int]]:
        Gate.reset()
        running = [executor.submit(Gate.pass_through, n) for n in range(2)]
        for _ in running:
            assert Gate.begun.acquire(timeout=WITHIN)
        return running


def said(*args: object, **kwargs: object) -> tuple[object, object]:
    return args, kwargs


@pytest.mark.parametrize(
    "word",
    ["actor", "allow_other_workers", "client", "fifo_timeout", "fn", "func", "key",
     "priority", "pure", "resources", "retries", "self", "workers"],
)  # fmt: skip
def test_every_keyword_of_a_call_is_the_function_s(
    executor: GroupExecutor, word: str
) -> None:
    future = executor.submit(said, 1, **{word: 4})

    assert future.result(WITHIN) == ((1,), {word: 4})


def test_options_hold_for_each_call_and_others_are_refused(
    address: str, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    tries.touch()

    def flaky() -> int:
        tries.write_text(tries.read_text() + ".")
        if len(tries.read_text()) < 3:
            raise OSError
        return len(tries.read_text())

    with opened(address, retries=2) as executor:
        assert executor.submit(flaky).result(WITHIN) == 3
    with (
        distributed.Client(address, set_as_default=False) as client,
        pytest.raises(TypeError, match="nope"),
    ):
        type(executor)(client, nope=1)


def test_equal_calls_are_computed_each(executor: GroupExecutor) -> None:
    futures = [executor.submit(object) for _ in range(3)]

    assert len({id(future.result(WITHIN)) for future in futures}) == 3


def test_map_is_that_of_all_executors(executor: GroupExecutor) -> None:
    assert list(executor.map(pow, range(9), [2] * 5)) == [0, 1, 4, 9, 16]
    assert list(executor.map(pow, range(4), range(4), chunksize=2)) == [1, 1, 4, 27]
    assert list(executor.map(pow, [], [])) == []
    results = executor.map(divmod, [1, 1, 1, 1], [0, 0, 5, 5])
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_a_map_that_takes_too_long_raises(executor: GroupExecutor) -> None:
    Gate.reset()
    results = executor.map(Gate.pass_through, [1], timeout=0)
    with pytest.raises(cf.TimeoutError):
        next(results)
    Gate.opened.set()


def test_map_s_results_are_there_behind_the_block(address: str) -> None:
    """Shows: E6."""
    with opened(address) as executor:
        running = Gate.fill(executor)
        results = executor.map(pow, range(5), [2] * 5)
        threading.Timer(0.05, Gate.opened.set).start()

    assert list(results) == [0, 1, 4, 9, 16]
    assert all(future.done() for future in running)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(pow, [2], [5])
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 5)


def boom(*_: object) -> None:
    msg = "it cannot be made here"
    raise ValueError(msg)


class Travelled:
    """Nobody can make it anew."""

    def __reduce__(self) -> Any:
        return boom, (1,)


def test_what_cannot_travel_ends_its_future(executor: GroupExecutor) -> None:
    given = executor.submit(len, threading.Lock())  # type: ignore[arg-type]
    assert isinstance(given.exception(WITHIN), TypeError)
    function = executor.submit(threading.Lock().acquire)
    assert isinstance(function.exception(WITHIN), TypeError)
    result = executor.submit(threading.Lock)
    assert isinstance(result.exception(WITHIN), TypeError)
    made = executor.submit(Travelled)
    assert isinstance(made.exception(WITHIN), ValueError)
    assert executor.submit(abs, -1).result(WITHIN) == 1


def test_a_cached_function_of_the_script_is_told_of_here(
    executor: GroupExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.cache
    def fit(number: int) -> int:
        return number

    monkeypatch.setattr(fit, "__module__", "__main__")

    with pytest.raises(pickle.PicklingError, match="fit cannot be sent"):
        executor.submit(fit, 1).result(WITHIN)


@pytest.mark.parametrize("wait", [True, False])
def test_what_was_taken_is_computed_after_shutdown(address: str, wait: bool) -> None:
    executor = opened(address)
    running = Gate.fill(executor)
    waiting = executor.submit(abs, -3)
    if wait:
        threading.Timer(0.05, Gate.opened.set).start()
    executor.shutdown(wait=wait)
    if wait:
        assert all(future.done() for future in [*running, waiting])
        assert executor._client.status == "closed"
    Gate.opened.set()

    assert [future.result(WITHIN) for future in running] == [0, 1]
    assert waiting.result(WITHIN) == 3
    executor.shutdown()
    executor.shutdown(cancel_futures=True)
    assert executor._client.status == "closed"


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_can_cancel_what_does_not_run(address: str, wait: bool) -> None:
    executor = opened(address)
    running = Gate.fill(executor)
    waiting = [executor.submit(abs, -3) for _ in range(10)]
    waiting[0].add_done_callback(lambda _: Gate.opened.set())
    executor.shutdown(wait=wait, cancel_futures=True)

    done, _ = cf.wait([*running, *waiting], WITHIN)
    assert len(done) == 12
    assert [future.result() for future in running] == [0, 1]
    assert all(future.cancelled() for future in waiting)
    executor.shutdown()


def test_one_that_is_cancelled_is_told_to_who_waits(executor: GroupExecutor) -> None:
    running = Gate.fill(executor)
    waiting = executor.submit(abs, -3)
    assert waiting.cancel()
    (first,) = cf.wait([waiting], WITHIN).done
    assert first is waiting
    with pytest.raises(cf.CancelledError):
        waiting.result()
    Gate.opened.set()

    assert set(cf.as_completed([*running, waiting], WITHIN)) == {*running, waiting}
    assert not running[0].cancel()


def test_wait_ends_with_the_first_that_is_done_or_raises(
    executor: GroupExecutor,
) -> None:
    running = Gate.fill(executor)
    failed = executor.submit(divmod, 1, 0)
    assert not failed.done()
    Gate.opened.set()

    done, _ = cf.wait([*running, failed], WITHIN, return_when=cf.FIRST_EXCEPTION)
    assert failed in done
    done, _ = cf.wait(running, WITHIN, return_when=cf.FIRST_COMPLETED)
    assert done


def test_an_exception_is_as_it_was_raised(executor: GroupExecutor) -> None:
    error = executor.submit(divmod, 1, 0).exception(WITHIN)
    assert isinstance(error, ZeroDivisionError)
    ended = executor.submit(next, iter([])).exception(WITHIN)
    assert isinstance(ended, StopIteration)


def test_a_callback_may_submit(executor: GroupExecutor) -> None:
    found: cf.Future[int] = cf.Future()

    def go_on(first: cf.Future[int]) -> None:
        second = executor.submit(abs, -first.result())
        second.add_done_callback(lambda future: found.set_result(future.result()))

    executor.submit(abs, -7).add_done_callback(go_on)
    assert found.result(WITHIN) == 7


def test_dask_lets_go_of_what_was_told(executor: GroupExecutor) -> None:
    future = executor.submit(bytes, 9)
    assert future.result(WITHIN) == bytes(9)

    until = time.monotonic() + WITHIN
    while executor._client.futures:
        assert time.monotonic() < until
        threading.Event().wait(0.001)


AT_EXIT = """
import pathlib, sys, time
from distributed import Client
from aemesh.client.executor import GroupExecutor

def write(place):
    time.sleep(0.05)
    pathlib.Path(place).touch()

executor = GroupExecutor(Client(sys.argv[1]))
for place in sys.argv[3:]:
    executor.submit(write, place)
if sys.argv[2] == "shut":
    executor.shutdown(wait=False)
"""


@pytest.mark.parametrize("how", ["shut", "left"])
def test_an_interpreter_ends_when_all_is_done(
    address: str, tmp_path: Path, how: str
) -> None:
    places = [str(tmp_path / str(number)) for number in range(8)]
    argv = [sys.executable, "-c", AT_EXIT, address, how, *places]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list(tmp_path.iterdir())) == len(places)
