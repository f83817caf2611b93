"""Values that come home: what is of a class of this script is of this script's class.

The problem: a class of a script has no module that others could import, so it travels
with its values, by cloudpickle.  The process that sent it out knows it again by a
number; the next one, which reads values that were kept, would make another class that
only looks the same: `isinstance` is false of it, and pickle refuses it.

So a class of ``__main__`` is looked up in ours by its name, as pickle does with
classes of modules.  What cloudpickle calls its makers is its own affair: where they
are called otherwise, values are read as by pickle alone.
"""

# ruff: noqa: ANN401 - a pickle has whatever there is

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOUDPICKLE = "cloudpickle.cloudpickle"


def read_value(data: bytes) -> Any:
    """Return what was pickled on a member of our own group, for the script to have."""
    if _CLOUDPICKLE.encode() not in data:
        return pickle.loads(data)  # noqa: S301 - of our own group
    return _Reader(io.BytesIO(data)).load()


class _Reader(pickle.Unpickler):  # of what our own group has computed
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._homes: list[type] = []

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module != _CLOUDPICKLE:
            return found
        if name == "_make_skeleton_class":
            return self._class_maker(found)
        if name == "_make_skeleton_enum":
            return self._enum_maker(found)
        if name == "_class_setstate":
            return self._setter(found)
        return found

    def _class_maker(self, make: Callable[..., type]) -> Callable[..., type]:
        def at_home(*given: Any) -> type:
            _, name, bases, own, number, *_ = given
            home = self._home(own.get("__module__"), name, bases, number)
            return home or make(*given)

        return at_home

    def _enum_maker(self, make: Callable[..., type]) -> Callable[..., type]:
        def at_home(*given: Any) -> type:
            bases, _, path, _, module, number, *_ = given
            return self._home(module, path, bases, number) or make(*given)

        return at_home

    def _setter(self, write: Callable[[type, Any], type]) -> Callable[..., type]:
        def unless_at_home(kind: type, state: Any) -> type:
            if any(kind is home for home in self._homes):
                return kind
            return write(kind, state)

        return unless_at_home

    def _home(
        self, module: str, name: str, bases: tuple[type, ...], number: object
    ) -> type | None:
        """Return the class of our script that is meant, or None if there is none."""
        home = getattr(sys.modules["__main__"], name, None)
        if module != "__main__" or not isinstance(home, type):
            return None
        names = [base.__qualname__ for base in bases]
        if [base.__qualname__ for base in home.__bases__] != names:
            return None
        sent = _sent(number)
        if sent is not None and sent.__qualname__ != name:  # one within a function
            return None
        self._homes.append(home)
        return home


def _sent(number: object) -> type | None:
    """Return the class that this process sent out under a number."""
    known = getattr(sys.modules[_CLOUDPICKLE], "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
    kind: type | None = known.get(number)
    return kind
