"""What is computed, as a fingerprint: the same in each process for the same thing.

The problem: a run's key is a word, and words are used twice.  The values of one
function must not be given for those of another, and an item must be found again by
what it is, not by where it stands in a list that has grown since.  Pickles do not
serve: they are other ones for equal sets, for strings that are shared, for functions
that moved a line.

So values are written down by their content (`_write`), and a function by the syntax
tree of its source: comments and line numbers do not count.  What it calls does not
count either; nobody can know that, and `fresh=True` is there for it.
"""

from __future__ import annotations

import ast
import copyreg
import dataclasses
import functools
import hashlib
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from aemesh.model.run import ItemId

if TYPE_CHECKING:
    from collections.abc import Callable

_ID_BYTES = 16
_PROTOCOL = 4  # the newest in which all of a value is in its parts
_Above = tuple[int, ...]  # ids of the values that the one at hand is within
# Values of which `repr` is the content.
_PLAIN = (int, float, complex, bool, type(None), str, bytes, type(...))


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
    """Return what tells this function from others, as 64 hexadecimal digits."""
    return _digest(_function(function)).hex()


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
    if kind in _PLAIN:
        text = repr(value).encode()
        out(b"%b:%d:%b" % (kind.__name__.encode(), len(text), text))
        return
    if id(value) in above:  # a function that calls itself, a list that has itself
        out(b"above:%d" % (len(above) - above.index(id(value))))
        return
    above += (id(value),)
    if kind in (list, tuple):
        _write_all(kind.__name__, value, out, above)  # type: ignore[arg-type]  # as was asked
    elif kind in (dict, set, frozenset):
        items = value.items() if isinstance(value, Mapping) else value
        assert isinstance(items, Iterable)
        digests = sorted(_digest(item, above) for item in items)
        _write_all(kind.__name__, digests, out, above)
    elif isinstance(value, PurePath):
        _write_all("path", (str(value),), out, above)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
        _write_all(f"{kind.__module__}.{kind.__qualname__}", pairs, out, above)
    elif isinstance(value, FunctionType | MethodType | functools.partial | type):
        _write_all("function", _function(value), out, above)
    elif isinstance(value, ModuleType):
        _write_all("module", (value.__name__,), out, above)
    else:
        _write_all("object", _parts(value), out, above)


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


def _parts(value: object) -> tuple[object, ...]:
    """Return what pickle would make it anew from, but not as a pickle writes it."""
    reduce = copyreg.dispatch_table.get(type(value))
    parts = value.__reduce_ex__(_PROTOCOL) if reduce is None else reduce(value)
    if isinstance(parts, str):
        return (getattr(value, "__module__", ""), parts)
    make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
    # What makes it is no part of it, unless it is one that was made itself.
    name = getattr(make, "__qualname__", None)
    what = make if name is None else (getattr(make, "__module__", ""), name)
    return (what, arguments, state, list(items or ()), list(pairs or ()))


def _function(function: Callable[..., Any]) -> tuple[object, ...]:
    """Return what a function is made of, as plain values."""
    if isinstance(function, functools.partial):
        parts = (function.args, dict(function.keywords))
        return ("partial", *_function(function.func), *parts)
    if isinstance(function, MethodType):
        return ("method", *_function(function.__func__), function.__self__)
    if not isinstance(function, FunctionType):
        named = getattr(function, "__qualname__", None)
        if named is not None:  # a class, or one that is written in C
            return ("named", getattr(function, "__module__", ""), named)
        return ("object", *_function(type(function).__call__), _held(function))
    cells = [_content(cell) for cell in function.__closure__ or ()]
    return (
        "function",
        function.__qualname__,
        _source(function) or _code(function.__code__),
        function.__defaults__,
        function.__kwdefaults__,
        cells,
    )


def _held(function: object) -> object:
    """Return what an object that can be called is made of."""
    return getattr(function, "__dict__", None) or _parts(function)


def _content(cell: Any) -> object:  # noqa: ANN401 - a cell has no public type
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet: the function's own name
        return None


def _source(function: FunctionType) -> str:
    """Return the tree of its source; "" for a lambda, whose line has others beside."""
    if function.__name__ == "<lambda>":
        return ""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    return ast.dump(tree)


def _code(code: CodeType) -> tuple[object, ...]:
    constants = [
        _code(value) if isinstance(value, CodeType) else value
        for value in code.co_consts
    ]
    return (code.co_code, constants, code.co_names, code.co_varnames)
