"""What is computed, as a fingerprint that is the same in each process."""

from __future__ import annotations

import functools
import json
import re
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.client.fingerprint import function_fingerprint, function_title, item_ids
from tests.client.processes import says_the_same_everywhere

ROOT = str(Path(__file__).parents[2])


@dataclass
class Cut:
    low: float
    high: float


def made(source: str, folder: Path, name: str = "work") -> Any:
    """Return the function of this name in a module with this source."""
    path = folder / f"{abs(hash(source))}.py"
    path.write_text(source)
    scope: dict[str, Any] = {"__name__": "made"}
    exec(compile(source, str(path), "exec"), scope)
    return scope[name]


class Run(Cut):
    """A plain class on top of a dataclass."""

    def __init__(self, seed: int) -> None:
        super().__init__(1.0, 2.0)
        self.seed = seed


@dataclass
class Event(dict[str, int]):
    """A dataclass on top of a container."""

    number: int = 0


@dataclass
class Late:
    """A dataclass with a field that has no value yet."""

    name: str
    at: float = field(init=False)


class Tags(set[str]):
    note = ""


def local(size: int) -> Any:
    class Local:
        def size(self) -> int:
            return size

    return Local()


def tagged(note: str) -> Tags:
    tags = Tags({"a"})
    tags.note = note
    return tags


def event(**content: int) -> Event:
    one = Event(1)
    one.update(content)
    return one


ITEMS = [
    Run(1),
    Run(2),
    event(a=1),
    event(a=2),
    Late("a"),
    Late("b"),
    local(1),
    local(2),
    tagged("a"),
    tagged("b"),
    frozenset({("a", 1)}),
    {"a": 1},
    OrderedDict(a=1, b=2),
    OrderedDict(b=2, a=1),
    PurePosixPath("/a"),
    PureWindowsPath("/a"),
    bytearray(b"1"),
    [("a", 1)],
    ["a", 1],
    {"a": 1, "b": {"c": 1}},
    {"a": {"b": 1, "c": 1}},
    1,
    True,
    1.0,
    "1",
    b"1",
    None,
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 2},
    {1: 3},
    (1, (2,)),
    (1, 2),
    ("a", "b"),
    ("ab",),
    Path("/a"),
    "/a",
    Namespace(a=1),
    Namespace(a=2),
    Fraction(1, 2),
    Fraction(1, 3),
    Cut,
    len,
    abs,
    re.compile("a"),
    re.compile("b"),
    Cut(1.0, 2.0),
    Cut(1.0, 3.0),
]


def test_other_items_have_other_ids() -> None:
    # Each alone: of equal ones in one list the second has another id.
    assert len({id_ for item in ITEMS for id_ in item_ids([item])}) == len(ITEMS)


def test_an_id_is_the_items_wherever_it_stands() -> None:
    assert item_ids(reversed(ITEMS)) == list(reversed(item_ids(ITEMS)))


def test_equal_items_are_counted() -> None:
    first = item_ids([7, 7, 8, 7])

    assert len(set(first)) == 4
    assert item_ids([8, 7, 7]) == [first[2], first[0], first[1]]


@pytest.mark.parametrize(
    "items",
    [
        "[{'a', 'b', 'c'}, {'x': {'y', 'z'}, 'w': 1}, ('a', 'a'), 1.5, 'é']",
        "[Namespace(cuts={'a', 'b', 'c'}), Namespace(more=[Namespace(x={'y', 'z'})])]",
        "[OrderedDict(x={'y', 'z', 'w'})]",
        "[Counter({'a', 'b', 'c'}), Tags({'a', 'b', 'c'})]",
        "[Table(dict.fromkeys({'a', 'b', 'c'})), Path('a'), defaultdict(list)]",
    ],
)
def test_ids_are_the_same_in_another_process(items: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from argparse import Namespace\n"
        "from collections import Counter, OrderedDict, defaultdict\n"
        "from pathlib import Path\n"
        "class Tags(set): pass\n"
        "class Table(dict): pass\n"
        "from aemesh.client.fingerprint import item_ids\n"
        f"print(item_ids({items}))"
    )
    assert says_the_same_everywhere(code)


@given(st.lists(st.text() | st.integers() | st.binary(), max_size=20))
def test_an_item_is_found_by_its_content(items: list[Any]) -> None:
    assert item_ids(items) == item_ids(list(items))
    assert len(set(item_ids(items))) == len(items)


def test_comments_and_lines_do_not_count_but_code_does(tmp_path: Path) -> None:
    first = made("def work(x):\n    return x + 1\n", tmp_path)
    moved = made("\n\n# why\ndef work(x):\n    # so\n    return (x + 1)\n", tmp_path)
    other = made("def work(x):\n    return x + 2\n", tmp_path)

    assert function_fingerprint(first) == function_fingerprint(moved)
    assert function_fingerprint(first) != function_fingerprint(other)


def test_what_a_function_was_made_with_counts() -> None:
    def scaled(by: int) -> Any:
        def work(x: int) -> int:
            return by * x

        return work

    def named(x: int, by: int = 2) -> int:
        return by * x

    def again(x: int, by: int = 3) -> int:
        return by * x

    prints = [
        scaled(2),
        scaled(3),
        named,
        functools.partial(named, by=4),
        functools.partial(named, by=5),
        again,
        lambda x: x + 1,
        lambda x: x + 2,
        len,
        abs,
        Cut,
    ]
    assert len({function_fingerprint(one) for one in prints}) == len(prints)
    assert function_fingerprint(scaled(2)) == function_fingerprint(scaled(2))


def test_what_a_function_has_around_it_may_be_anything() -> None:
    class Sum:
        def __init__(self, by: int) -> None:
            self.by = by

    def again(x: int) -> int:
        return x and again(x - 1)

    module = json

    def loads(x: str) -> Any:
        return module.loads(x)

    def adds(sum_: Sum) -> Any:
        def work(x: int) -> Any:
            return Sum(x + sum_.by)

        return work

    prints = [again, loads, adds(Sum(1)), adds(Sum(2))]
    assert len({function_fingerprint(one) for one in prints}) == len(prints)
    assert function_fingerprint(adds(Sum(1))) == function_fingerprint(adds(Sum(1)))


def test_a_value_that_has_itself_has_an_id() -> None:
    one: list[Any] = [1]
    one.append(one)
    two: list[Any] = [1, [1]]
    two[1].append(two)

    assert len(set(item_ids([one, two, [1]]))) == 3


def test_two_lambdas_of_one_line_are_two() -> None:
    first, second = (lambda x: x + 1), (lambda x: x * 2)

    assert function_fingerprint(first) != function_fingerprint(second)


@pytest.mark.parametrize(
    ("function", "title"),
    [(len, "builtins.len"), (functools.partial(len), "builtins.len")],
)
def test_a_title_is_what_a_person_calls_it(function: Any, title: str) -> None:
    assert function_title(function) == title
