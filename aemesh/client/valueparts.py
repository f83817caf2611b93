"""What a value is made of, as simpler values: what `pickle` would make it anew from."""

from __future__ import annotations

import argparse
import copyreg
import dataclasses
import enum
import inspect
import pathlib
import sys
import sysconfig
import types
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROTOCOL = 4  # the newest in which all of a value is in its parts
# Values of which `repr` is the content.
PLAIN = (int, float, complex, bool, type(None), str, type(...))
CONTAINERS = (list, tuple, dict, set, frozenset)
PATHS = tuple(
    getattr(pathlib, kind + flavour + "Path")
    for kind in ("", "Pure")
    for flavour in ("Posix", "Windows")
)
# Classes of these are data, if all that is in them is.
_MODULES = ("collections", "datetime", "decimal", "fractions", "re", "uuid")
_KINDS = (argparse.Namespace, types.SimpleNamespace, range, slice, bytearray)
_REDUCES = ("__reduce__", "__reduce_ex__")
_AS_SET = [
    {name: inspect.getattr_static(kind, name) for name in _REDUCES}
    for kind in (set, frozenset)
]
_IS_MADE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_INSTALLED = ("site-packages", "dist-packages")


class Unordered(tuple[object, ...]):
    """Values of which the order does not count."""

    __slots__ = ()


def parts_of_value(value: object) -> tuple[object, ...]:
    """Return what pickle would make it anew from, but not as a pickle writes it.

    Raises what pickle raises of a value that cannot travel, most often `TypeError`.
    """
    kind = type(value)
    reduce = copyreg.dispatch_table.get(kind)
    parts = value.__reduce_ex__(_PROTOCOL) if reduce is None else reduce(value)
    if isinstance(parts, str):
        return (getattr(value, "__module__", ""), parts)
    make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
    what: object
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # it is not in its stub
        what, arguments = _called(arguments[0]), arguments[1:]
    else:
        # What makes it is no part of it, unless it is one that was made itself.
        what = make if getattr(make, "__qualname__", None) is None else named(make)
    if isinstance(value, set | frozenset) and _reduces_as_set(kind):
        what, arguments = _called(kind), Unordered(value)
    if items is None and pairs is None:
        return (what, arguments, state) if arguments else (what, state)
    # The order of an OrderedDict is a part of it.
    is_ordered = not isinstance(value, dict) or hasattr(kind, "move_to_end")
    inside = (list if is_ordered else Unordered)(pairs or ())
    return (what, arguments, state, list(items or ()), inside)


def is_data(value: object, above: tuple[int, ...] = ()) -> bool:
    """Whether it is a number, a text or made of such: the same in each process."""
    kind = type(value)
    if kind in PLAIN or kind in PATHS or kind is bytes or id(value) in above:
        return True
    above += (id(value),)
    if kind in CONTAINERS:
        each = [*value, *value.values()] if isinstance(value, dict) else value
        return all(is_data(one, above) for one in each)  # type: ignore[attr-defined]  # it is one
    if _is_array(value):
        return not value.dtype.hasobject  # type: ignore[attr-defined]  # it has one
    return _may_be_data(kind) and _has_data_alone(value, above)


def is_own(scope: Mapping[str, Any]) -> bool:
    """Whether these are the globals of a user's own file, not of what is installed."""
    if scope.get("__name__") == "__main__":
        return True
    file = scope.get("__file__")
    if not isinstance(file, str):
        return scope.get("__spec__") is None
    return not _is_installed(file)


def is_own_class(kind: type) -> bool:
    """Whether a class was written in a user's own file."""
    module = sys.modules.get(kind.__module__)
    return module is None or is_own(getattr(module, "__dict__", {}))


def is_found(kind: type) -> bool:
    """Whether a class is what its name says, as one within a function is not."""
    if not kind.__flags__ & _IS_MADE:  # written in C: there is one
        return True
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def named(kind: object) -> str:
    """Return what a class or a function that is installed is called."""
    module, name = getattr(kind, "__module__", ""), getattr(kind, "__qualname__", "")
    if not isinstance(name, str) or not name:  # an object that can be called
        module, name = type(kind).__module__, type(kind).__qualname__
    return f"{module}:{name}"


def _called(kind: type) -> object:
    """Return a class by its name, or itself if its name does not lead to it."""
    return named(kind) if is_found(kind) else kind


def _reduces_as_set(kind: type) -> bool:
    found = {name: inspect.getattr_static(kind, name) for name in _REDUCES}
    return any(found == one for one in _AS_SET)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def _may_be_data(kind: type) -> bool:
    return not issubclass(kind, type) and (
        kind.__module__ in _MODULES
        or issubclass(kind, _KINDS)
        or issubclass(kind, enum.Enum)
        or dataclasses.is_dataclass(kind)
        or is_own_class(kind)
    )


def _has_data_alone(value: object, above: tuple[int, ...]) -> bool:
    try:
        parts = parts_of_value(value)
    except Exception:  # noqa: BLE001 - a class raises what it likes
        return False
    return all(isinstance(p, type) or is_data(p, above) for p in _flat(parts))


def _flat(parts: tuple[object, ...]) -> list[object]:
    """Return parts, and what is in those that are tuples."""
    return [one for p in parts for one in (p if isinstance(p, tuple) else (p,))]


@lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    path = Path(file)
    paths = sysconfig.get_paths()
    standard = (Path(paths["stdlib"]), Path(paths["platstdlib"]))
    return any(name in path.parts for name in _INSTALLED) or any(
        folder in path.parents for folder in standard
    )
