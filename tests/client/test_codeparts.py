"""What a function does, in its fingerprint: all that can be seen of it."""

from __future__ import annotations

import json
import linecache
import re
from pathlib import Path
from typing import Any

import pytest

from aemesh.client.fingerprint import function_fingerprint
from tests.client.processes import says_the_same_everywhere

ROOT = str(Path(__file__).parents[2])


def made(source: str, folder: Path) -> Any:
    """Return what is called `work` in a module with this source."""
    path = folder / f"{abs(hash(source))}.py"
    path.write_text(source)
    scope: dict[str, Any] = {"__name__": "made"}
    exec(compile(source, str(path), "exec"), scope)
    return scope["work"]


JIT = """
import functools
class jit:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
    def __call__(self, x):
        return self.function(x)
"""
NUMBA = """
import functools, uuid
class jit:
    def __init__(self, function):
        self.py_func = function
        self.targetoptions = {"nopython": True}
        self.uuid = uuid.uuid4().hex
    def __call__(self, x):
        return self.py_func(x)
"""
OTHERS = {
    "an object that wraps": (JIT + "@jit\ndef work(x): return x + 1", "+ 1", "+ 2"),
    "what wraps it": (
        JIT + "@jit\ndef work(x): return x",
        "self, x):",
        "self, x, y=0):",
    ),
    "one of numba": (NUMBA + "@jit\ndef work(x): return x + 1", "+ 1", "+ 2"),
    "numba's options": (NUMBA + "@jit\ndef work(x): return x", "True", "False"),
    "a class": ("class work:\n def __init__(self, x): self.x = x + 1", "+ 1", "+ 2"),
    "a base": ("class base:\n at = 1\nclass work(base): pass", "at = 1", "at = 2"),
    "a property": ("class work:\n at = property(lambda self: 1)", ": 1", ": 2"),
    "a method of C": ("work = {1: 2}.get", "1: 2", "1: 3"),
    "a cached one": (
        "import functools\n@functools.cache\ndef work(x): return x + 1",
        "+ 1",
        "+ 2",
    ),
    "a wrapper": (
        (
            "import functools\n"
            "def deco(function):\n"
            "  @functools.wraps(function)\n"
            "  def inner(x): return function(x) + 1\n"
            "  return inner\n"
            "@deco\ndef work(x): return x"
        ),
        "+ 1",
        "+ 2",
    ),
    "a constant": ("CUT = 3\ndef work(x): return x > CUT", "= 3", "= 7"),
    "one of many": (
        "CUTS = {'a': [3]}\ndef work(x): return x > CUTS['a'][0]",
        "[3]",
        "[7]",
    ),
    "one of a helper": (
        "CUT = 3\ndef cut(x): return x > CUT\ndef work(x): return cut(x)",
        "= 3",
        "= 7",
    ),
    "one within": ("CUT = 3\ndef work(x): return [y > CUT for y in x]", "= 3", "= 7"),
    "one's attribute": (
        (
            "from argparse import Namespace\nargs = Namespace(cut=3)\n"
            "def work(x): return x > args.cut"
        ),
        "cut=3",
        "cut=7",
    ),
    "a helper": ("def cut(x): return x > 3\ndef work(x): return cut(x)", "> 3", "> 7"),
    "a helper's helper": (
        "def a(x): return b(x)\ndef b(x): return a(x) or 3\ndef work(x): return a(x)",
        "3",
        "7",
    ),
    "a helper that is cached": (
        (
            "import functools\n@functools.cache\ndef cut(x): return x > 3\n"
            "def work(x): return cut(x)"
        ),
        "> 3",
        "> 7",
    ),
    "a helper in a table": (
        "CUTS = {'a': lambda x: x > 3}\ndef work(x): return CUTS['a'](x)",
        "> 3",
        "> 7",
    ),
    "a class that it makes": (
        "class Cut:\n def low(self): return 3\ndef work(x): return Cut().low()",
        "return 3",
        "return 7",
    ),
    "a helper's other name": (
        "from math import sin as f\ndef work(x): return f(x)",
        "import sin",
        "import cos",
    ),
    "a module's other name": (
        "import math as m\ndef work(x): return m.sqrt(x)",
        "import math",
        "import cmath",
    ),
    "a partial": (
        (
            "import functools\ndef cut(x, y): return x > y\n"
            "low = functools.partial(cut, 3)\ndef work(x): return low(x)"
        ),
        "3)",
        "7)",
    ),
    "an attribute": ("def work(x): return work.cut\nwork.cut = 3", "= 3", "= 7"),
    "where it tries": (
        "def work(x):\n a = 1\n try:\n  b = 2\n  c = 3\n except OSError: pass",
        "  b = 2\n",
        " \n",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_a_function_does_counts(what: str, tmp_path: Path) -> None:
    source, old, new = OTHERS[what]
    first, again = made(source, tmp_path), made(f"# why\n\n{source}", tmp_path)
    other = made(source.replace(old, new), tmp_path)

    assert source.replace(old, new) != source
    assert function_fingerprint(first) == function_fingerprint(again)
    assert function_fingerprint(first) != function_fingerprint(other)


def test_a_file_that_was_edited_since_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("def work(x): return x + 1\n")
    scope: dict[str, Any] = {"__name__": "made"}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    before = function_fingerprint(scope["work"])

    path.write_text("def work(x): return x + 2\n")
    linecache.checkcache()

    assert function_fingerprint(scope["work"]) == before


def test_what_cannot_be_written_down_may_stand_beside(tmp_path: Path) -> None:
    source = """
import threading, sys
lock = threading.Lock()
class Held:
    def __init__(self): self.lock = lock
held = Held()
def helper(x, stop=threading.Event()): return held and stop
def work(x):
    with lock:
        return helper(x), sys.stdout
"""
    first, second = made(source, tmp_path), made(source, tmp_path)

    assert function_fingerprint(first) == function_fingerprint(second)


def test_what_is_installed_counts_by_its_name() -> None:
    before = function_fingerprint(json.dumps)

    json.dumps({"a": 1}, indent=1)

    assert function_fingerprint(json.dumps) == before
    assert function_fingerprint(json.dumps) != function_fingerprint(json.loads)


@pytest.mark.parametrize(
    "source",
    [
        "CUTS = {'a', 'b', 'c'}\ndef work(x): return x in CUTS, x in {'e', 'f'}",
        (
            "from dataclasses import dataclass, field\n@dataclass\nclass work:\n"
            " x: int\n tags: set = field(default_factory=set)"
        ),
        (
            "import enum\nclass S(enum.Enum):\n A = frozenset({'a', 'b', 'c'})\n"
            "def work(x): return S.A, S(x)"
        ),
        (
            "import abc\nclass B(abc.ABC):\n @abc.abstractmethod\n"
            " def f(self): self.a = 1\n"
            "class work(B):\n def f(self): self.b = self.c = 2; super().f()"
        ),
        (
            "import typing\nclass P(typing.NamedTuple):\n a: int\n"
            "def work(x): return P(x), P(a=2)"
        ),
        "def work(x): return work(x - 1)",
        NUMBA + "@jit\ndef work(x): return x",
    ],
)
def test_a_function_is_the_same_in_another_process(source: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n{source}\n"
        "from aemesh.client.fingerprint import function_fingerprint\n"
        "print(function_fingerprint(work))"
    )
    assert says_the_same_everywhere(code)


def test_the_rule_stands_in_front() -> None:
    assert re.fullmatch(r"\d+:[0-9a-f]{64}", function_fingerprint(len))
