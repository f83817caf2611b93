"""What a group's workers must have: ``cores>=4 and memory>=8G and "gpu" in labels``.

A requirement is text that a person types; it becomes a tree of comparisons, and never
code.  The grammar, with names and words as Python has them::

    any     = all { "or" all }
    all     = one { "and" one }
    one     = "not" one | "(" any ")" | compare
    compare = NAME OP value | TEXT ["not"] "in" NAME
    OP      = "==" | "!=" | "<" | "<=" | ">" | ">="

``not`` is worked in while reading, so that what is left says plainly what is wanted,
and what a worker lacks can be told in the same words.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aemesh import limits
from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.model.machine import Facts
    from aemesh.model.names import NodeName

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"[^"]*"|'[^']*')
      | (?P<number>[0-9]+(?:\.[0-9]+)*[A-Za-z]*)
      | (?P<name>[A-Za-z_]+)
      | (?P<op>[<>=!]=|[<>])
      | (?P<bracket>[()])
    )""",
    re.VERBOSE | re.ASCII,
)
_OPS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?([KMGT])", re.ASCII)
_CORES = re.compile(r"[0-9]{1,9}", re.ASCII)
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", re.ASCII)
_NAMES = ("cores", "memory", "python", "system", "name", "labels")
_EXAMPLE = 'cores>=4 and memory>=8G and "gpu" in labels'


class Condition(Protocol):
    """A part of a requirement."""

    def lacks(self, worker: NodeName, facts: Facts) -> str:
        """Return what the worker lacks, as a sentence; "" if it satisfies this."""

    def negated(self) -> Condition:
        """Return the opposite."""


@dataclass(frozen=True, slots=True)
class Compare:
    """A number, size, version or name of the worker, against one that is wanted."""

    name: str
    op: str
    wanted: object
    shown: str  # the value, as it was typed

    def lacks(self, worker: NodeName, facts: Facts) -> str:
        """Return what is there and what was wanted, or ""."""
        has, shown = _value(self.name, worker, facts)
        if isinstance(has, tuple) and isinstance(self.wanted, tuple):
            has = has[: len(self.wanted)]  # 3.11.2 is 3.11
        if _OPS[self.op](has, self.wanted):
            return ""
        return f"{self.name} {shown}, wanted {self.op} {self.shown}"

    def negated(self) -> Condition:
        """Return the opposite comparison."""
        return Compare(self.name, _OPPOSITE[self.op], self.wanted, self.shown)


@dataclass(frozen=True, slots=True)
class Has:
    """A label of the worker, or a part of a text of it."""

    text: str
    name: str
    wanted: bool = True

    def lacks(self, worker: NodeName, facts: Facts) -> str:
        """Return that the text is missing, or that it is there, or ""."""
        if self.name == "labels":
            found, shown = self.text in facts.labels, f"label {quoted(self.text)}"
            there = "no " if self.wanted else "has the "
            return "" if found is self.wanted else there + shown
        has, shown = _value(self.name, worker, facts)
        found = self.text in str(has)
        no = "" if self.wanted else "no "
        told = f"{self.name} {shown}, wanted {no}{quoted(self.text)} in it"
        return "" if found is self.wanted else told

    def negated(self) -> Condition:
        """Return that it is not to be there, or that it is."""
        return Has(self.text, self.name, not self.wanted)


@dataclass(frozen=True, slots=True)
class Every:
    """All of these; none is always satisfied."""

    parts: tuple[Condition, ...] = ()

    def lacks(self, worker: NodeName, facts: Facts) -> str:
        """Return all that is lacking."""
        told = (part.lacks(worker, facts) for part in self.parts)
        return "; ".join(filter(None, told))

    def negated(self) -> Condition:
        """Return that one of them fails."""
        return Some(tuple(part.negated() for part in self.parts))


@dataclass(frozen=True, slots=True)
class Some:
    """One of these is enough."""

    parts: tuple[Condition, ...]

    def lacks(self, worker: NodeName, facts: Facts) -> str:
        """Return what each alternative lacks, if none is satisfied."""
        told = []
        for part in self.parts:
            lack = part.lacks(worker, facts)
            if not lack:
                return ""
            told.append(lack)
        return ", or ".join(told)

    def negated(self) -> Condition:
        """Return that all of them fail."""
        return Every(tuple(part.negated() for part in self.parts))


ANYTHING = Every()


def parse_requirement(text: str) -> Condition:
    """Return what `text` requires, nothing if it is empty; raises `UsageError`."""
    if len(text) > limits.REQUIRE_LENGTH:
        msg = f"a requirement has at most {limits.REQUIRE_LENGTH} characters"
        raise UsageError(msg, why=f"it has {len(text)}")
    if not text.strip():
        return ANYTHING
    return _Reader(text).read()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # a group of `_TOKEN`, or "end"
    text: str
    column: int  # from 1, as editors count

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else quoted(self.text)


@dataclass(slots=True)
class _Reader:
    """Reads one requirement, from left to right."""

    source: str
    _tokens: list[_Token] = field(default_factory=list)
    _at: int = 0
    _depth: int = 0

    def read(self) -> Condition:
        self._tokens = list(_split(self.source))
        condition = self._any()
        token = self._next()
        if token.kind != "end":
            raise _wrong(token, 'expected "and", "or" or the end')
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Condition:
        token = self._peek()
        self._depth += 1
        if self._depth > limits.REQUIRE_DEPTH:
            raise _wrong(token, f"nested more than {limits.REQUIRE_DEPTH} deep")
        if self._take("not"):
            condition = self._one().negated()
        elif self._take("("):
            condition = self._any()
            if not self._take(")"):
                raise _wrong(self._peek(), 'expected ")"')
        else:
            condition = self._compare()
        self._depth -= 1
        return condition

    def _compare(self) -> Condition:
        first = self._next()
        if first.kind == "text":
            wanted = not self._take("not")
            if not self._take("in"):
                raise _wrong(self._peek(), f'expected "in labels" behind {first}')
            name = self._name()
            if name.text not in {"labels", "system", "name"}:
                raise _wrong(name, 'expected "labels", "system" or "name" behind "in"')
            return Has(first.text[1:-1], name.text, wanted)
        self._check_name(first)
        op = self._next()
        if first.text == "labels":
            raise _wrong(op, 'labels are asked for as "gpu" in labels')
        if op.kind != "op":
            raise _wrong(op, f"expected one of == != < <= > >= behind {first}")
        if first.text in {"name", "system"} and op.text not in {"==", "!="}:
            raise _wrong(op, f"{first.text} has no order; expected == or !=")
        value = self._next()
        return Compare(first.text, op.text, _read(first.text, value), value.text)

    def _name(self) -> _Token:
        token = self._next()
        self._check_name(token)
        return token

    @staticmethod
    def _check_name(token: _Token) -> None:
        if token.kind != "name" or token.text not in _NAMES:
            raise _wrong(token, f"expected one of {', '.join(_NAMES)}")

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)  # the end stays
        return token

    def _take(self, word: str) -> bool:
        token = self._peek()
        found = token.kind in {"name", "bracket"} and token.text == word
        if found:
            self._next()
        return found


def _split(source: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(source.rstrip())
    while at < end:
        found = _TOKEN.match(source, at, end)
        if found is None:
            space = len(source[at:]) - len(source[at:].lstrip())
            rest = _Token("odd", source[at + space :][:1], at + space + 1)
            why = "the quote is not closed" if rest.text in "'\"" else "what is this"
            raise _wrong(rest, why)
        kind = found.lastgroup or ""
        tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
        at = found.end()
    return [*tokens, _Token("end", "", end + 1)]


def _read(name: str, token: _Token) -> object:
    """Return a value that can be compared with this name of a worker."""
    text = token.text[1:-1] if token.kind == "text" else token.text
    if name == "cores":
        if token.kind == "number" and _CORES.fullmatch(text):
            return int(text)
        raise _wrong(token, "expected a number of cores, like 4")
    if name == "memory":
        size = _SIZE.fullmatch(text) if token.kind == "number" else None
        if size is None:
            raise _wrong(token, "expected a size with its unit, like 8G")
        part = (size[2] or "").ljust(3, "0")
        return int(size[1] + part) * _UNITS[size[3]] // 1000
    if name == "python":
        if token.kind in {"text", "number"} and _VERSION.fullmatch(text):
            return _version(text)
        raise _wrong(token, "expected a version, like 3.11")
    if token.kind != "text":
        raise _wrong(token, f'expected a text in quotes behind {name}, like "office-1"')
    return text


def _value(name: str, worker: NodeName, facts: Facts) -> tuple[object, str]:
    """Return what a worker has by this name, to compare and to show."""
    if name == "cores":
        return facts.cores, str(facts.cores)
    if name == "memory":
        return facts.memory, f"{facts.memory / 2**30:.1f} GiB"
    if name == "python":
        return _version(facts.python), quoted(facts.python)
    text = str(worker) if name == "name" else facts.system
    return text, quoted(text)


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; 3.13.0rc1 has three."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,5}", text, re.ASCII)
    return tuple(map(int, found[0].split("."))) if found else ()


def _wrong(token: _Token, why: str) -> UsageError:
    return UsageError(
        f"the requirement cannot be read at column {token.column}, {token}",
        why=why,
        hint=f"one that can be read: {_EXAMPLE}",
    )
