"""Waiting for a master that was killed and will be back, instead of giving up."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from aemesh import limits
from aemesh.errors import NoMasterError, UnreachableError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_AGAIN_AFTER = 0.2


class Patience:
    """Asks again while there is no master, as long as its workers wait for it, too.

    Only for what may be done twice.  `stop` ends all waiting.
    """

    def __init__(
        self, stop: threading.Event, *, within: float = limits.LEASE_KEPT_AFTER
    ) -> None:
        self._stop = stop
        self._within = within

    def __repr__(self) -> str:
        return f"<Patience of {self._within:g} s>"

    def ask(self, call: Callable[[], _T]) -> _T:
        """Return what `call` does, once a master answers; raises its last error."""
        began: float | None = None
        while True:
            try:
                result = call()
            except (NoMasterError, UnreachableError) as error:
                now = time.monotonic()
                if began is None:
                    began = now
                    _log.warning("%s; it is asked again", error)
                if now - began > self._within or self._stop.wait(_AGAIN_AFTER):
                    raise
            else:
                if began is not None:
                    _log.warning("the master answers again")
                return result
