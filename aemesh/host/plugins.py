"""Plug-ins are found by name, among the entry points that are installed."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import TYPE_CHECKING

from aemesh.errors import EngineError, UnknownNameError

if TYPE_CHECKING:
    from aemesh.plugin import Engine

_GROUP = "aemesh.engines"


def engine_names() -> list[str]:
    """Return the names of the installed engines."""
    return sorted(_installed().names)


def find_engine(name: str) -> Engine:
    """Return the engine of this name.

    Raises `UnknownNameError`, or `EngineError` when its plug-in cannot be loaded.
    """
    if name not in _installed().names:  # its package may have come since
        importlib.invalidate_caches()
        _installed.cache_clear()
    for point in _installed().select(name=name):
        try:
            engine: Engine = point.load()
        except Exception as exc:  # a plug-in's import may raise anything
            msg = f"cannot load the engine {name}"
            raise EngineError(msg, why=str(exc)) from exc
        return engine
    msg = "engine"
    raise UnknownNameError(msg, name, engine_names())


@cache
def _installed() -> EntryPoints:
    """Look once: it reads a file of each distribution that is installed, 5 ms."""
    return entry_points(group=_GROUP)
