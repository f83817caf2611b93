"""The words of ``aemesh map``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.client.template import Template, parse, split_lines
from aemesh.errors import UsageError

FILES = {"-": ["in"], "names": ["x", "y"], "empty": []}


def parsed(words: str, *files: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    template, items = parse(words.split(), files=files, read=FILES.__getitem__)
    return template.words, items


@pytest.mark.parametrize(
    ("words", "items"),
    [
        ("cat {} ::: a b", [("a",), ("b",)]),
        ("cat", [("in",)]),
        ("cat ::: a ::: 1 2", [("a", "1"), ("a", "2")]),
        ("cat ::: a b :::+ 1 2", [("a", "1"), ("b", "2")]),
        ("cat :::: names", [("x",), ("y",)]),
        ("cat ::: a b ::::+ names", [("a", "x"), ("b", "y")]),
        ("cat :::", []),
        ("cat ::: a ::: ", []),
    ],
)
def test_sources_are_combined_or_linked(
    words: str, items: list[tuple[str, ...]]
) -> None:
    assert parsed(words)[1] == items


def test_a_file_of_an_option_is_a_source_too() -> None:
    assert parsed("cat ::: a", "names")[1] == [("x", "a"), ("y", "a")]
    assert parsed("cat", "empty")[1] == []


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("{}", "d/a.b.gz"),
        ("{.}", "d/a.b"),
        ("{/}", "a.b.gz"),
        ("{//}", "d"),
        ("{/.}", "a.b"),
        ("{#}", "7"),
        ("{1}", "d/a.b.gz"),
        ("{1/.}", "a.b"),
        ("x{/}y", "xa.b.gzy"),
        ("{}{}", "d/a.b.gzd/a.b.gz"),
        ("{a}", "{a}"),
        ("{ }", "{ }"),
    ],
)
def test_a_place_is_filled(word: str, filled: str) -> None:
    assert Template(("c", word, "{}")).fill(("d/a.b.gz",), 7)[1] == filled


def test_without_a_place_the_arguments_come_last() -> None:
    assert Template(("echo",)).fill(("a", "b"), 1) == ("echo", "a", "b")
    assert Template(("echo", "{2}", "{1}")).fill(("a", "b"), 1) == ("echo", "b", "a")
    assert Template(("echo", "{}")).fill(("a", "b"), 1) == ("echo", "a", "b")
    assert Template(("echo", "<{}>")).fill(("a", "b"), 1) == ("echo", "<a b>")


@pytest.mark.parametrize(
    "words",
    ["", "::: a", "cat :::+ a", "cat ::: a b :::+ 1", "cat {2} ::: a", "cat {0} ::: a"],
)
def test_words_that_make_no_sense_are_told(words: str) -> None:
    with pytest.raises(UsageError):
        parsed(words)


@pytest.mark.parametrize("arg", ["a\0b", "\udcff"])
def test_what_cannot_be_an_argument_is_refused(arg: str) -> None:
    with pytest.raises(UsageError, match="cannot be an argument"):
        parse(["cat", ":::", arg], read=FILES.__getitem__)


def test_a_command_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be an argument"):
        parse(["echo", "\udcff", "{}", ":::", "a"], read=lambda _: [])


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RUN_ITEMS", 3)
    with pytest.raises(UsageError, match="more than 3"):
        parsed("cat ::: a b ::: 1 2")


@given(st.lists(st.text().filter(lambda text: text != "{}"), min_size=1), st.text())
def test_an_argument_is_a_word_whatever_is_in_it(words: list[str], arg: str) -> None:
    filled = Template((*words, "{}")).fill((arg,), 1)

    assert filled[-1] == arg
    assert len(filled) == len(words) + 1


@pytest.mark.parametrize(
    ("data", "null", "lines"),
    [
        (b"", False, []),
        (b"a\nb", False, ["a", "b"]),
        (b"a\n\nb\n", False, ["a", "", "b"]),
        (b"a\nb\0c\0", True, ["a\nb", "c"]),
        (b"\xff\n", False, ["\udcff"]),
    ],
)
def test_lines_of_a_file_are_arguments(
    data: bytes, null: bool, lines: list[str]
) -> None:
    assert split_lines(data, null=null) == lines
