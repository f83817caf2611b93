"""What is computed, as a fingerprint: the same in each process for the same thing.

The problem: a run's key is a word, and words are used twice.  The values of one
function must not be given for those of another, and an item must be found again by
what it is, not by where it stands in a list that has grown since.  Pickles do not
serve: they are other ones for equal sets, for strings that are shared, for functions
that moved a line.

So values are written down by their content (`_write`), and functions by what they are
made of (`aemesh.client.codeparts`).  What is not seen from there does not count, as
files and libraries do not; `fresh=True` is there for it.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from aemesh.client.codeparts import helpers_of, is_code, parts_of_code
from aemesh.client.valueparts import PATHS, PLAIN, Unordered, parts_of_value
from aemesh.model.run import ItemId

if TYPE_CHECKING:
    from collections.abc import Callable

_ID_BYTES = 16
# Raised when the same function or item is written down in another way from now on.
_RULE = 2
_Above = tuple[int, ...]  # ids of the values that the one at hand is within


def item_ids(items: Iterable[object]) -> list[ItemId]:
    """Return an id for each item, by its content; equal ones are counted."""
    seen: Counter[bytes] = Counter()
    ids = []
    for item in items:
        digest = _digest(item)
        seen[digest] += 1
        if seen[digest] > 1:
            digest = _digest((digest, seen[digest]))
        ids.append(ItemId(digest[:_ID_BYTES].hex()))
    return ids


def function_fingerprint(function: Callable[..., object]) -> str:
    """Return what tells this function from others: ``RULE:64 hexadecimal digits``."""
    parts = (parts_of_code(function), helpers_of(function))
    return f"{_RULE}:{_digest(parts).hex()}"


def function_title(function: Callable[..., object]) -> str:
    """Return what a person calls it."""
    if isinstance(function, functools.partial):
        return function_title(function.func)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}".lstrip(".")


def _digest(value: object, above: _Above = ()) -> bytes:
    digest = hashlib.sha256()
    _write(value, digest.update, above)
    return digest.digest()


def _write(value: object, out: Callable[[bytes], object], above: _Above = ()) -> None:
    """Write a value down, so that equal ones are equal and others are not."""
    kind = type(value)
    if kind in PLAIN:
        text = repr(value).encode()
        out(b"%b:%d:%b" % (kind.__name__.encode(), len(text), text))
        return
    if kind is bytes:
        out(b"bytes:%d:" % len(value))  # type: ignore[arg-type]  # they are
        out(value)  # type: ignore[arg-type]
        return
    if id(value) in above:  # a function that calls itself, a list that has itself
        out(b"above:%d" % (len(above) - above.index(id(value))))
        return
    above += (id(value),)
    if kind in (list, tuple):
        _write_all(kind.__name__, value, out, above)  # type: ignore[arg-type]  # as was asked
    elif kind is dict:
        _write_dict(value, out, above)  # type: ignore[arg-type]  # it is one
    elif kind in (set, frozenset, Unordered):
        assert isinstance(value, Iterable)
        digests = sorted(_digest(item, above) for item in value)
        _write_all(kind.__name__, digests, out, above)
    elif kind in PATHS:
        _write_all(kind.__name__, (str(value),), out, above)
    elif is_code(value):
        _write_all("code", parts_of_code(value), out, above)
    elif isinstance(value, ModuleType):
        _write_all("module", (value.__name__,), out, above)
    else:
        _write_all("object", parts_of_value(value), out, above)


def _write_dict(
    value: dict[object, object], out: Callable[[bytes], object], above: _Above
) -> None:
    if {*map(type, value)} == {str}:
        out(b"names(")
        for name in sorted(value):  # type: ignore[type-var]  # they are
            _write(name, out)
            _write(value[name], out, above)
        out(b")")
    else:
        digests = sorted(_digest(item, above) for item in value.items())
        _write_all("dict", digests, out, above)


def _write_all(
    kind: str,
    values: Iterable[object],
    out: Callable[[bytes], object],
    above: _Above,
) -> None:
    out(b"%b(" % kind.encode())
    for value in values:
        _write(value, out, above)
    out(b")")
