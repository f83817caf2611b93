"""Turn idle machines into a trusted mesh that runs one analysis.

Public names are loaded when they are first used: ``import aemesh`` is nearly free,
and so is every command that does not need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aemesh.client.group import Group as Group
    from aemesh.client.item import checkpoint as checkpoint
    from aemesh.client.item import leaving_after as leaving_after
    from aemesh.client.item import resume as resume
    from aemesh.client.mesh import Mesh as Mesh
    from aemesh.client.mesh import connect as connect
    from aemesh.errors import AemeshError as AemeshError

    __version__: str

_HOMES = {
    "AemeshError": "aemesh.errors",
    "Group": "aemesh.client.group",
    "Mesh": "aemesh.client.mesh",
    "checkpoint": "aemesh.client.item",
    "connect": "aemesh.client.mesh",
    "leaving_after": "aemesh.client.item",
    "resume": "aemesh.client.item",
}

__all__ = [
    "AemeshError",
    "Group",
    "Mesh",
    "__version__",
    "checkpoint",
    "connect",
    "leaving_after",
    "resume",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as many types as names
    import importlib  # noqa: PLC0415 - not even this, unless it is wanted

    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("aemesh")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        msg = f"module 'aemesh' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
