"""What an item may say of itself while it is computed: how far it is, and from where.

::

    def fit(sample):
        state = aemesh.resume() or start(sample)
        while not state.done:
            state.step()
            aemesh.checkpoint(state)
        return state.result

Cut off in the middle, the item goes on from its last checkpoint on another worker.
Outside of a durable run all this does nothing, so the same function runs anywhere.  It
imports the standard library only, for it is loaded wherever an item runs.
"""

from __future__ import annotations

import os
import pickle
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.client.agent import VARIABLE, this_agent
from aemesh.errors import RunFullError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# They tell a command of `aemesh map` which item it is.
RUN_VARIABLE = "AEMESH_RUN"
LIFE_VARIABLE = "AEMESH_RUN_LIFE"
ITEM_VARIABLE = "AEMESH_ITEM"


@dataclass(frozen=True, slots=True)
class Item:
    """An item that is computed now, and the run that it belongs to."""

    run: str
    life: int
    id: str

    def save(self, state: bytes) -> None:
        """Have the master keep a state; returns once it is on its disk.

        Raises `RunFullError` for one that is too large.
        """
        if len(state) > limits.RUN_VALUE_BYTES:
            what = f"a state of {len(state)} bytes is not kept"
            most = f"at most {limits.RUN_VALUE_BYTES} bytes"
            raise RunFullError(what, why=most)
        head = {"id": self.id, "size": len(state)}
        question = {"t": "checkpoint", "run": self.run, "life": self.life, "item": head}
        this_agent().ask(question, state)

    def saved(self) -> bytes | None:
        """Return the last state that was kept, or None if there is none."""
        question: dict[str, object] = {"t": "resume", "run": self.run}
        told, state = this_agent().ask(question | {"life": self.life, "item": self.id})
        return state if told["found"] else None


_now: ContextVar[Item | None] = ContextVar("aemesh_item", default=None)


@contextmanager
def working_on(item: Item) -> Iterator[None]:
    """Have the block be the work on this item."""
    token = _now.set(item)
    try:
        yield
    finally:
        _now.reset(token)


def this_item() -> Item | None:
    """Return the item that is computed here, in this thread or this process.

    Raises `SettingsError` if the variables that tell it have not all come through.
    """
    item = _now.get()
    if item is None and ITEM_VARIABLE in os.environ and VARIABLE in os.environ:
        item = _told(os.environ)
    return item


def _told(environ: Mapping[str, str]) -> Item:
    try:
        life = int(environ[LIFE_VARIABLE])
        return Item(environ[RUN_VARIABLE], life, environ[ITEM_VARIABLE])
    except (KeyError, ValueError):
        names = (RUN_VARIABLE, LIFE_VARIABLE, ITEM_VARIABLE)
        msg = "which item this is cannot be told"
        lacks = [f"${name}" for name in names if name not in environ]
        why = f"{' and '.join(lacks) or f'${LIFE_VARIABLE}'} did not come through"
        hint = f"hand on all of ${', $'.join(names)}"
        raise SettingsError(msg, why=why, hint=hint) from None


def checkpoint(state: object) -> None:
    """Keep the state of the item that is computed here, in place of the one before.

    Returns once it is on the master's disk; a few milliseconds.  `state` is pickled,
    to 64 MiB at most, else `RunFullError` is raised.  Outside of a durable run it does
    nothing.
    """
    item = this_item()
    if item is not None:
        item.save(_pickled(state))


def resume() -> Any:  # noqa: ANN401 - whatever was given to `checkpoint`
    """Return the state of the last checkpoint of this item; None if there is none."""
    item = this_item()
    state = None if item is None else item.saved()
    return None if state is None else pickle.loads(state)  # noqa: S301 - of our group


def _pickled(state: object) -> bytes:
    try:
        return pickle.dumps(state, protocol=5)
    except Exception:
        # Of a class that no module has but a notebook; where Dask is, it comes along.
        with suppress(ImportError):
            pickled: bytes = import_module("cloudpickle").dumps(state, protocol=5)
            return pickled
        raise


def leaving_after() -> float | None:
    """Return the seconds until this worker leaves; None if nothing is agreed.

    Outside of a job of aemesh it is None, too.
    """
    if VARIABLE not in os.environ:
        return None
    told, _ = this_agent().ask({"t": "whoami"})
    after: float | None = told["leaves_after"]
    return after
