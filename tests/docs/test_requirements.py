"""The page of requirements names every one, and tests that there are."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "requirements.md"

# The letters of the requirements, and how many there are of each.
LETTERS = {"A": 8, "D": 12, "T": 11, "G": 6, "L": 9, "E": 7, "C": 7, "B": 5, "U": 5}
IDS = [f"{letter}{n}" for letter, last in LETTERS.items() for n in range(1, last + 1)]

_ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
_SHOWS = re.compile(r"Shows: ((?:[A-Z]\d+)(?:, [A-Z]\d+)*)")


def rows() -> list[tuple[str, str]]:
    """Return each id of the page with what shows it."""
    return [(number, shown) for number, _, shown in _ROW.findall(PAGE.read_text())]


@functools.cache
def cases_in(path: Path) -> dict[str, str]:
    """Return the tests of a file with their docstrings."""
    tree = ast.parse(path.read_text())
    functions = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {
        one.name: ast.get_docstring(one) or ""
        for one in functions
        if one.name.startswith("test_")
    }


def shown_ids(docstring: str) -> set[str]:
    """Return the requirements that a docstring says are shown."""
    return {
        number for found in _SHOWS.findall(docstring) for number in found.split(", ")
    }


def test_every_requirement_stands_there_once():
    assert [number for number, _ in rows()] == IDS


@pytest.mark.parametrize(("number", "shown"), rows())
def test_what_shows_a_requirement_is_a_test_that_says_so(number: str, shown: str):
    named = _TEST.findall(shown)

    if not named:
        assert shown == "not yet"
        return
    found = {}
    for file, name in named:
        tests = cases_in(TESTS / file)
        assert name in tests, f"there is no {name} in {file}"
        found[name] = shown_ids(tests[name])
    assert any(number in ids for ids in found.values()), (
        f"none says `Shows: {number}`: {', '.join(found)}"
    )


def test_what_tests_say_that_they_show_is_a_requirement():
    said = {
        f"{path.relative_to(TESTS)}::{name}": shown_ids(text)
        for path in TESTS.rglob("test_*.py")
        for name, text in cases_in(path).items()
    }

    wrong = {name: ids - set(IDS) for name, ids in said.items() if ids - set(IDS)}
    assert not wrong


def test_what_a_test_shows_is_no_longer_not_yet():
    missing = {number for number, shown in rows() if shown == "not yet"}
    said = {
        (number, f"{path.relative_to(TESTS)}::{name}")
        for path in TESTS.rglob("test_*.py")
        for name, text in cases_in(path).items()
        for number in shown_ids(text) & missing
    }

    assert not said, "say so in docs/requirements.md"
