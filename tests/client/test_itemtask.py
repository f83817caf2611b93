"""What runs on a worker for a map: a real job, its socket, and a ledger in memory."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
import trio

import aemesh
from aemesh import limits
from aemesh.client import itemtask
from aemesh.client.item import Item, this_item, working_on
from aemesh.client.itemtask import Batch, Failure, dumps, loads, run_batch
from aemesh.errors import RunFullError
from aemesh.host.jobs import open_jobs
from aemesh.host.ledger.clerk import Clerk
from aemesh.host.ledger.ledger import memory_ledger
from aemesh.master.asked import Asked
from aemesh.model.job import JobSpec
from aemesh.model.names import GroupName, JobId, NodeName
from aemesh.model.run import Commit, ItemId, Piece, RunKey, RunName

A, K = GroupName("A"), RunKey("k")
ROOT = str(Path(__file__).parents[2])
IDS = [ItemId(f"{number:032x}") for number in range(5)]


def square(number: int) -> int:
    if number == 3:
        msg = "three is odd"
        raise ValueError(msg)
    return number * number


class OddError(Exception):
    """An exception that cannot be made of its words alone."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)


def odd(number: int) -> int:
    raise OddError(number, "no reason")


def batch(items: range) -> Batch:
    return Batch(tuple(map(dumps, items)))


def test_a_batch_has_a_result_for_each_item() -> None:
    outcome = run_batch(batch(range(5)), dumps(square), "office-1")

    values = [
        one if isinstance(one, Failure) else loads(one) for one in outcome.results
    ]  # type: ignore[arg-type]  # none is kept
    assert values[:3] == [0, 1, 4]
    assert values[4] == 16
    failure = values[3]
    assert isinstance(failure, Failure)
    assert isinstance(loads(failure.error), ValueError)
    assert failure.worker == "office-1"
    assert "three is odd" in failure.told
    assert outcome.computed == 5


def test_an_exception_that_cannot_travel_comes_as_words() -> None:
    outcome = run_batch(batch(range(1)), dumps(odd))

    (failure,) = outcome.results
    assert isinstance(failure, Failure)
    error = loads(failure.error)
    assert isinstance(error, RuntimeError)
    assert "OddError: no reason" in str(error)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_item_that_exits_fails_and_takes_no_worker_with_it(
    kind: type[BaseException],
) -> None:
    def leave(number: int) -> None:
        raise kind(number)

    outcome = run_batch(batch(range(3)), dumps(leave), "office-1")

    for number, failure in enumerate(outcome.results):
        assert isinstance(failure, Failure)
        error = loads(failure.error)
        assert isinstance(error, RuntimeError)
        assert str(error) == f"{kind.__name__}: {number}"


def test_outside_of_a_run_a_state_is_kept_nowhere() -> None:
    aemesh.checkpoint({"far": 1})

    assert aemesh.resume() is None
    assert aemesh.leaving_after() is None


def test_a_thread_works_on_the_item_if_it_has_its_context() -> None:
    item = Item("k", 1, IDS[0])
    with working_on(item), ThreadPoolExecutor(1) as pool:
        assert pool.submit(this_item).result() is None
        assert pool.submit(copy_context().run, this_item).result() is item


PROGRAM = f"""
import json, os, sys
sys.path.insert(0, {ROOT!r})
import aemesh
from aemesh import limits
from aemesh.client import itemtask
from aemesh.client.itemtask import Batch, Failure, dumps, run_batch

def work(number):
    os.write(1, b"run %d\\n" % number)
    at = aemesh.resume()
    os.write(1, b"at %s\\n" % str(at).encode())
    aemesh.checkpoint(number * 10)
    if number == 4:
        raise ValueError("four")
    return bytes(number)

run, life, *ids = sys.argv[1:]
batch = Batch(
    tuple(map(dumps, range(len(ids)))), tuple(ids), tuple(ids), run, int(life)
)
outcome = run_batch(batch, dumps(work))
told = [one and one.told.split(":")[-1].strip() for one in outcome.results]
print(json.dumps([outcome.computed, told]))
"""


async def test_a_batch_of_a_run_computes_and_keeps_what_is_not_kept(
    tmp_path: Path,
) -> None:
    """Shows: L3."""
    ledger = memory_ledger(wall=lambda: 1.0)
    view = ledger.open_run(A, K, fingerprint="f", title="t", total=5)
    run = RunName(A, K, view.life)
    ledger.apply([Commit(run, (Piece(IDS[1], b"first"),))])
    asked = Asked(Clerk(ledger), A, NodeName("office-1"), trio.Semaphore(1))
    spec = JobSpec(argv=(sys.executable, "-c", PROGRAM, K, str(view.life), *IDS))
    async with open_jobs(tmp_path / "run") as jobs:
        for computed, ran, at in ((4, "0234", "None"), (1, "4", "40")):
            job = await jobs.start(JobId("one"), spec, answer=asked.answer)
            said = b"".join([chunk.data async for chunk in job.output()]).decode()
            await job.wait()
            *steps, told = said.splitlines()

            assert json.loads(told) == [computed, [None, None, None, None, "four"]]
            assert [s.split()[1] for s in steps if s.startswith("run")] == [*ran]
            assert [s.split()[1] for s in steps if s.startswith("at")][-1] == at

    assert ledger.known(run, IDS) == IDS[:4]
    assert loads(ledger.value(run, IDS[2]) or b"") == bytes(2)
    assert ledger.value(run, IDS[1]) == b"first"
    assert loads(ledger.state(run, IDS[4]) or b"") == 40
    ledger.check()


STATES = f"""
import sys
sys.path.insert(0, {ROOT!r})
import aemesh
from aemesh import limits
from aemesh.client.item import Item, working_on

notebook = {{"__name__": "__main__"}}  # of another process
exec("class State: at = 0", notebook)
run, life, item = sys.argv[1:]
with working_on(Item(run, int(life), item)):
    state = aemesh.resume() or notebook["State"]()
    state.at += 1
    aemesh.checkpoint(state)
    print(state.at)
    limits.RUN_VALUE_BYTES = 1000
    try:
        aemesh.checkpoint(bytes(1001))
    except aemesh.AemeshError as error:
        print(error)
"""


async def test_a_state_is_of_any_class_and_of_so_many_bytes(tmp_path: Path) -> None:
    """Shows: L3."""
    ledger = memory_ledger(wall=lambda: 1.0)
    view = ledger.open_run(A, K, fingerprint="f", title="t", total=5)
    asked = Asked(Clerk(ledger), A, NodeName("office-1"), trio.Semaphore(1))
    words = (sys.executable, "-c", STATES, K, str(view.life), IDS[0])
    async with open_jobs(tmp_path / "run") as jobs:
        for at in "12":
            spec = JobSpec(argv=words)
            job = await jobs.start(JobId("one"), spec, answer=asked.answer)
            said = b"".join([chunk.data async for chunk in job.output()]).decode()
            await job.wait()

            assert said.startswith(f"{at}\na state of 10"), said


def test_a_value_that_is_too_large_is_the_items_own_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RUN_VALUE_BYTES", 50)
    monkeypatch.setattr(itemtask._Keeper, "known", lambda _: set())
    monkeypatch.setattr(itemtask._Keeper, "keep", lambda _: None)
    order = Batch(tuple(map(dumps, (1, 100))), tuple(IDS[:2]), ("", ""), "k", 1)

    small, large = run_batch(order, dumps(bytes)).results

    assert small is None
    assert isinstance(large, Failure)
    assert isinstance(loads(large.error), RunFullError)
    assert "at most 50 bytes" in large.told
