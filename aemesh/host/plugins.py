"""Plug-ins are found by name, among the entry points that are installed."""

from __future__ import annotations

from importlib.metadata import entry_points

from aemesh.errors import EngineError, UnknownNameError
from aemesh.plugin import Engine

_GROUP = "aemesh.engines"


def engine_names() -> list[str]:
    """Return the names of the installed engines."""
    return sorted(point.name for point in entry_points(group=_GROUP))


def find_engine(name: str) -> Engine:
    """Return the engine of this name.

    Raises `UnknownNameError`, or `EngineError` when its plug-in cannot be loaded.
    """
    for point in entry_points(group=_GROUP, name=name):
        try:
            engine: Engine = point.load()
        except Exception as exc:  # noqa: BLE001 - a plug-in's import may raise anything
            raise EngineError(f"cannot load the engine {name}", why=str(exc)) from exc
        return engine
    raise UnknownNameError("engine", name, engine_names())
