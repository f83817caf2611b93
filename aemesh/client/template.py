"""The words of ``aemesh map``: a command with places, and the arguments for them.

GNU parallel's syntax, as far as it needs no shell: ``CMD {} ::: a b`` runs ``CMD a``
and ``CMD b``.  More ``:::`` make every combination, ``:::+`` goes along with the one
before, ``::::`` and ``::::+`` read lines of files.  A word is filled as a word,
whatever is in it; nothing is ever read by a shell.

| place | is |
| --- | --- |
| ``{}`` | the argument; of several sources all, each a word if it stands alone |
| ``{.}`` | without its extension |
| ``{/}`` | its last part; ``{//}`` the folder; ``{/.}`` that part without extension |
| ``{#}`` | the item's number, from 1 |
| ``{2}``, ``{2.}`` … | of the second source |
"""

from __future__ import annotations

import itertools
import os.path
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Args = tuple[str, ...]

_PLACE = re.compile(r"\{(\d*)(//|/\.|/|\.|)\}|\{#\}")
_SOURCE = re.compile(r"(:{3,4})(\+?)")


@dataclass(frozen=True, slots=True)
class Template:
    """A command with places."""

    words: tuple[str, ...]

    def fill(self, args: Args, number: int) -> tuple[str, ...]:
        """Return the command of one item; without a place its arguments come last."""
        if not any(_PLACE.search(word) for word in self.words):
            return (*self.words, *args)
        filled: list[str] = []
        for word in self.words:
            if word == "{}":
                filled += args
            else:
                filled.append(_PLACE.sub(lambda at: _put(at, args, number), word))
        return tuple(filled)

    def check(self, sources: int) -> None:
        """Refuse places of sources that are not there."""
        for word in self.words:
            for at in _PLACE.finditer(word):
                if at[1] and not 1 <= int(at[1]) <= sources:
                    msg = f"{at[0]} has no arguments"
                    raise UsageError(msg, why=f"there are {sources} sources of them")


def parse(
    words: Sequence[str],
    *,
    files: Sequence[str] = (),
    read: Callable[[str], Iterable[str]],
) -> tuple[Template, list[Args]]:
    """Return the command and the arguments of each item.

    `files` are sources beside those of the words; without any it is ``-``.  `read`
    yields the lines of a file.  Raises `UsageError`.
    """
    at = next((n for n, word in enumerate(words) if _SOURCE.fullmatch(word)), None)
    command = words if at is None else words[:at]
    if not command:
        msg = "which command?"
        raise UsageError(msg, hint="`aemesh map --group NAME -- CMD {} ::: ARG…`")
    sources: list[list[Args]] = [[(line,) for line in read(file)] for file in files]
    if at is not None:
        sources += _sources(words[at:], read)
    if not sources:
        sources = [[(line,) for line in read("-")]]
    for word in command:
        _check(word)
    template = Template(tuple(command))
    items = list(_bounded(sum(parts, ()) for parts in itertools.product(*sources)))
    if items:
        template.check(len(items[0]))
    return template, items


def lines_of(path: Path, *, null: bool) -> list[str]:
    """Return the lines of a file of arguments; raises `UsageError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read"
        raise UsageError(msg, why=error.strerror) from error
    return split_lines(data, null=null)


def split_lines(data: bytes, *, null: bool) -> list[str]:
    """Return arguments that are separated by line ends, or by zero bytes."""
    parts = data.split(b"\0" if null else b"\n")
    if parts[-1] == b"":
        parts.pop()
    return [os.fsdecode(part) for part in parts]


def _sources(
    words: Sequence[str], read: Callable[[str], Iterable[str]]
) -> list[list[Args]]:
    sources: list[list[Args]] = []
    for mark, linked, given in _groups(words):
        texts = given
        if mark == "::::":
            texts = [line for file in given for line in read(file)]
        if not linked:
            sources.append([(text,) for text in texts])
            continue
        if not sources:
            msg = f"{mark}+ goes along with nothing"
            raise UsageError(msg, why="it is the first source of arguments")
        before = sources[-1]
        if len(before) != len(texts):
            msg = f"{mark}+ has {len(texts)} arguments"
            raise UsageError(msg, why=f"the source before it has {len(before)}")
        both = zip(before, texts, strict=True)
        sources[-1] = [(*args, text) for args, text in both]
    return sources


def _groups(words: Sequence[str]) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield each mark, whether it is a linked one, and the words behind it."""
    mark, linked, given = "", False, list[str]()
    for word in words:
        found = _SOURCE.fullmatch(word)
        if found is None:
            given.append(word)
            continue
        if mark:
            yield mark, linked, given
        mark, linked, given = found[1], bool(found[2]), []
    yield mark, linked, given


def _bounded(items: Iterable[Args]) -> Iterator[Args]:
    for count, item in enumerate(items):
        if count >= limits.RUN_ITEMS:
            msg = f"more than {limits.RUN_ITEMS} items"
            raise UsageError(msg, hint="give one file of arguments after the other")
        for arg in item:
            _check(arg)
        yield item


def _check(arg: str) -> None:
    """Refuse what cannot be an argument on another machine."""
    if "\0" in arg or not _is_text(arg):
        msg = f"{quoted(arg)} cannot be an argument"
        raise UsageError(msg, why="it is not UTF-8, or has a zero byte")


def _is_text(arg: str) -> bool:
    try:
        arg.encode()
    except UnicodeEncodeError:
        return False
    return True


def _put(at: re.Match[str], args: Args, number: int) -> str:
    if at[0] == "{#}":
        return str(number)
    chosen = args if not at[1] else (args[int(at[1]) - 1],)
    return " ".join(_formed(arg, at[2]) for arg in chosen)


def _formed(arg: str, form: str) -> str:
    if form == "//":
        return os.path.dirname(arg) or "."
    if form in ("/", "/."):
        arg = os.path.basename(arg)
    if form in (".", "/."):
        return os.path.splitext(arg)[0]
    return arg
