"""A command spread over members: outputs whole, retries elsewhere, nothing left."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Self

import pytest

from aemesh import limits
from aemesh.client import spread as spreading
from aemesh.client.ended import Ended
from aemesh.client.fingerprint import item_ids
from aemesh.client.spread import Order, Spread
from aemesh.errors import (
    EngineError,
    GroupClosedError,
    GroupIncompleteError,
    NotBegunError,
    UnknownNameError,
    UnreachableError,
)
from aemesh.model.job import RELEASED, Channel, Chunk, JobExit
from aemesh.model.run import ItemView, Piece

Program = Callable[[str, tuple[str, ...]], Iterator[Chunk | JobExit]]


class Master:
    """A master's status, as far as it is looked at."""

    def __init__(self, office: Office, started_at: float = 1.0) -> None:
        self._office = office
        self.started_at = started_at

    @property
    def workers(self) -> list[View]:
        return self._office.views

    @property
    def groups(self) -> list[SimpleNamespace]:
        return self._office.groups


class View:
    """A member, as far as it is looked at."""

    group = "A"
    state = "leased"

    def __init__(self, name: str, cores: int = 2) -> None:
        self.key = f"key of {name}"
        self.name = name
        self.cores = cores


class FakeJob:
    """A job that runs a program of the test's, in the thread that reads it."""

    def __init__(self, program: Iterator[Chunk | JobExit]) -> None:
        self._program = program
        self._exit: JobExit | None = None
        self.ended = threading.Event()

    def close_input(self) -> None:
        pass

    def output(self) -> Iterator[Chunk]:
        for one in self._program:
            if self.ended.is_set():
                break
            if isinstance(one, JobExit):
                self._exit = one
                return
            yield one
        msg = "ended"
        raise UnreachableError(msg)

    def wait(self) -> JobExit:
        assert self._exit is not None
        return self._exit

    def end(self) -> None:
        self.ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class FakeRun:
    """A run in memory."""

    key, life = "k", 1

    def __init__(self) -> None:
        self.values_of: dict[str, bytes] = {}

    def items(self) -> Iterator[ItemView]:
        for one in self.values_of:
            yield ItemView(
                number=1, id=one, title="", digest="", size=0, worker="", at=0
            )

    def commit(self, pieces: list[Piece], *, worker: str) -> None:
        assert worker == "one"
        for piece in pieces:
            self.values_of.setdefault(piece.id, piece.value)

    def values(self, ids: list[str]) -> Iterator[bytes]:
        return (self.values_of[one] for one in ids)


class Office:
    """Members that run a program, and what they ran."""

    def __init__(self, program: Program, *names: str) -> None:
        self.views: list[Any] = [View(name) for name in names]
        self.groups = [SimpleNamespace(name="A", state="ready")]
        self.wait: Callable[[], None] = lambda: None
        self.jobs: list[FakeJob] = []
        self.runs: list[tuple[str, tuple[str, ...]]] = []
        self.env: list[Mapping[str, str]] = []
        self._program = program
        self.masters = [Master(self)]

    def start(self, key: str, argv: tuple[str, ...], env: Mapping[str, str]) -> Any:
        name = key.removeprefix("key of ")
        self.runs.append((name, argv))
        self.env.append(env)
        job = FakeJob(self._program(name, argv))
        self.jobs.append(job)
        return job

    def spread(self, *args: str, run: Any = None, **options: Any) -> Spread:
        ids = item_ids((arg,) for arg in args)
        orders = [
            Order(("cmd", arg), item if run else None, arg)
            for arg, item in zip(args, ids, strict=True)
        ]
        return Spread(
            orders,
            status=self.status,
            group="A",
            wait=self.wait,
            start=self.start,
            run=run,
            **options,
        )

    def status(self) -> Any:
        return self.masters[0]


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "_LOOK_AFTER", 0.01)


def said(ended: Ended) -> tuple[int, bytes, bytes]:
    return ended.code, ended.stdout.all(), ended.stderr.all()


def echo(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
    for letter in argv[1]:
        yield Chunk(Channel.STDOUT, letter.encode())
        yield Chunk(Channel.STDERR, letter.upper().encode())
    yield JobExit(0)


def test_what_an_item_says_is_its_own_and_whole() -> None:
    office = Office(echo, "one", "two")
    args = [f"item{letter}" for letter in "abcdefghij"]

    ended = {one.number: said(one) for one in office.spread(*args).results()}

    assert ended == {
        number: (0, arg.encode(), arg.upper().encode())
        for number, arg in enumerate(args)
    }
    assert {name for name, _ in office.runs} == {"one", "two"}


def test_an_item_that_fails_is_tried_elsewhere() -> None:
    def program(name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        yield Chunk(Channel.STDOUT, name.encode())
        yield JobExit(1 if name == "bad" else 0)

    office = Office(program, "bad", "good")
    office.views[1].cores = 1

    ended = list(office.spread("a", "b").results())

    assert [said(one) for one in ended] == [(0, b"good", b"")] * 2
    assert {one.worker for one in ended} == {"good"}


def test_an_item_that_goes_on_failing_has_its_code_and_tries() -> None:
    office = Office(lambda *_: iter([JobExit(7)]), "one", "two")

    (ended,) = office.spread("a", retries=2).results()

    assert (ended.code, ended.tries, ended.ok) == (7, 3, False)
    assert len(office.runs) == 3


def test_a_command_that_cannot_start_is_told() -> None:
    office = Office(echo, "one")

    def start(*_: Any) -> Any:
        msg = "no such program"
        raise EngineError(msg)

    office.start = start  # type: ignore[method-assign]
    (ended,) = office.spread("a", retries=0).results()

    assert (ended.code, ended.reason) == (127, "no such program")


def test_a_lost_member_costs_no_try() -> None:
    losses = iter([True, True, False])

    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        yield Chunk(Channel.STDOUT, b"half")
        if next(losses):
            yield JobExit(-1, "the stream to the worker ended")
        yield JobExit(0)

    office = Office(program, "one")

    (ended,) = office.spread("a", retries=0).results()

    assert said(ended) == (0, b"half", b"")


def test_what_ends_with_the_master_begins_again_and_costs_nothing() -> None:
    ways = iter([True] * 9)

    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        if next(ways, False):  # each time there is another master
            office.masters.insert(0, Master(office, office.masters[0].started_at + 1))
            msg = "the master hung up"
            raise UnreachableError(msg)
        yield JobExit(0)

    office = Office(program, "one")

    (ended,) = office.spread("a", retries=0).results()

    assert (ended.code, ended.tries) == (0, 1)
    assert len(office.runs) == 10


def test_a_member_that_is_out_of_its_masters_reach_counts_as_lost() -> None:
    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        msg = "one dropped a job's stream"
        raise UnreachableError(msg)
        yield JobExit(0)

    office = Office(program, "one")

    (ended,) = office.spread("a", retries=0).results()

    assert ended.tries == 4
    assert "dropped" in ended.reason


@pytest.mark.usefixtures("looks_often")
def test_a_member_that_has_left_is_asked_once_and_costs_nothing() -> None:
    """The list of the members is a moment old."""

    class Left(Office):
        def start(self, key: str, argv: tuple[str, ...], env: Mapping[str, str]) -> Any:
            job = super().start(key, argv, env)
            if key == "key of gone":
                self.views = self.views[1:]
                raise UnknownNameError("worker", key, [])
            return job

    office = Left(echo, "gone", "one")
    spread = office.spread("a", "b", "c", "d", retries=0)

    ended = list(spread.results())

    assert {(one.worker, one.tries) for one in ended} == {("one", 1)}
    assert spread.aside() == {}


@pytest.mark.usefixtures("looks_often")
def test_what_is_not_begun_is_begun_later_and_costs_nothing() -> None:
    full = iter([True] * 2)

    class Full(Office):
        def start(self, key: str, argv: tuple[str, ...], env: Mapping[str, str]) -> Any:
            if next(full, False):
                msg = "one did not start a job"
                raise NotBegunError(msg, why="busy")
            return super().start(key, argv, env)

    office = Full(echo, "one")
    spread = office.spread("a", "b", retries=0)

    ended = list(spread.results())

    assert [(one.ok, one.tries) for one in ended] == [(True, 1)] * 2
    assert spread.aside() == {}


def test_a_member_with_many_slots_starts_a_few_at_a_time() -> None:
    """All of its slots are used, and none of its starts is one too many."""
    lock, together = threading.Lock(), threading.Barrier(64)
    starting, most = 0, 0

    class Large(Office):
        def start(self, key: str, argv: tuple[str, ...], env: Mapping[str, str]) -> Any:
            nonlocal starting, most
            with lock:
                starting += 1
                most = max(most, starting)
            job = super().start(key, argv, env)
            with lock:
                starting -= 1
            return job

    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        together.wait(10)
        yield JobExit(0)

    office = Large(program, "one")
    args = [str(number) for number in range(128)]

    ended = list(office.spread(*args, slots=64, retries=0).results())

    assert [(one.ok, one.tries) for one in ended] == [(True, 1)] * 128
    assert most <= limits.STARTS_AT_ONCE


@pytest.mark.usefixtures("looks_often")
def test_an_item_that_was_released_with_its_member_costs_nothing() -> None:
    """A planned departure is no loss."""
    released = iter([True] * 8)

    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        if next(released, False):
            yield JobExit(143, RELEASED)
        yield JobExit(0)

    office = Office(program, "one", "two")
    spread = office.spread("a", "b", retries=0)

    ended = list(spread.results())

    assert [(one.ok, one.tries) for one in ended] == [(True, 1)] * 2
    assert spread.aside() == {}


def test_a_member_that_is_on_its_way_out_gets_nothing_new() -> None:
    office = Office(echo, "one", "two")
    office.views[0].state = "draining"

    list(office.spread("a", "b", "c").results())

    assert {name for name, _ in office.runs} == {"two"}


@pytest.mark.usefixtures("looks_often")
def test_without_members_it_waits_as_long_as_the_group_does() -> None:
    office = Office(echo)
    told: list[bool] = []

    def wait() -> None:
        assert told[-1], "it says so before it waits"
        if len(told) < 3:  # a moment of one: it is gone again
            return
        office.views.append(View("late"))

    office.wait = wait
    spread = office.spread("a")
    (ended,) = spread.results(tick=lambda: told.append(spread.waits))

    assert (ended.worker, told[-1]) == ("late", False)

    office.views.clear()
    office.wait = lambda: raises(GroupIncompleteError("group A has no workers"))
    with pytest.raises(GroupIncompleteError):
        list(office.spread("a").results())


@pytest.mark.usefixtures("looks_often")
def test_a_group_that_is_removed_ends_it_once_what_runs_has_ended() -> None:
    go = threading.Event()

    def program(name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        office.groups[0].state, office.views = "closing", []
        go.wait(10)
        yield JobExit(0)

    office = Office(program, "one")
    office.wait = lambda: raises(UnknownNameError("group", "A", []))
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            go.set()
        if ticks == 20:
            office.groups.clear()

    results = office.spread("a", "b", slots=1).results(tick=tick)
    assert next(results).ok
    with pytest.raises(GroupClosedError, match="group A was closed"):
        next(results)
    assert ticks >= 20


def raises(error: Exception) -> None:
    raise error


def test_what_was_finished_is_kept_and_given_again_without_running() -> None:
    """Shows: L3."""
    run = FakeRun()
    office = Office(echo, "one")
    first = {
        one.number: said(one) for one in office.spread("a", "b", run=run).results()
    }
    assert office.env[0].keys() == {"AEMESH_RUN", "AEMESH_RUN_LIFE", "AEMESH_ITEM"}
    office.runs.clear()

    again = list(office.spread("b", "c", "a", run=run).results())

    assert [(one.number, one.kept) for one in again] == [
        (0, True),
        (2, True),
        (1, False),
    ]
    assert {one.number: said(one) for one in again} == {
        0: first[1],
        2: first[0],
        1: (0, b"c", b"C"),
    }
    assert [argv[1] for _, argv in office.runs] == ["c"]


def test_what_failed_is_not_kept() -> None:
    run = FakeRun()
    office = Office(lambda *_: iter([JobExit(3)]), "one")

    list(office.spread("a", run=run, retries=0).results())

    assert run.values_of == {}


def test_output_that_is_too_large_to_be_kept_fails_the_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RUN_VALUE_BYTES", limits.CHUNK_BYTES + 3)
    office = Office(echo, "one")

    ended = list(office.spread("ab", "a", run=FakeRun(), retries=0).results())

    assert {one.argv[1]: one.ok for one in ended} == {"ab": False, "a": True}
    (failed,) = (one for one in ended if not one.ok)
    assert "at most" in failed.reason


def test_who_stops_listening_ends_all_jobs() -> None:
    go = threading.Event()

    def program(_name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        if argv[1] == "quick":
            yield JobExit(0)
        while not go.wait(0.01):
            yield Chunk(Channel.STDOUT, b".")
        yield JobExit(0)

    office = Office(program, "one")
    spread = office.spread("long", "quick")
    results = spread.results()
    assert next(results).number == 1

    results.close()

    assert all(job.ended.is_set() for job in office.jobs)
    assert not any(thread.is_alive() for thread in spread._threads)


def test_members_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "_LOOK_AFTER", 0.0)

    def program(name: str, argv: tuple[str, ...]) -> Iterator[Chunk | JobExit]:
        office.views = [View("two")]
        yield JobExit(0)

    office = Office(program, "one")

    ended = list(office.spread(*"abcdef", slots=1).results())

    assert len(ended) == 6
    names = Counter(name for name, _ in office.runs)
    assert names["two"] >= 1


def test_a_bug_in_a_thread_is_not_waited_for() -> None:
    office = Office(lambda *_: iter([ZeroDivisionError]), "one")  # type: ignore[list-item]

    with pytest.raises(AttributeError):
        list(office.spread("a").results())
