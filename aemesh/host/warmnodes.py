"""The spares of a worker: nodes of the engines that are installed here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aemesh.errors import EngineError, UnknownNameError
from aemesh.host.plugins import engine_names, find_engine
from aemesh.host.spares import Spares
from aemesh.model.job import NodeKind
from aemesh.plugin import Engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import trio

    from aemesh.model.job import JobSpec


@dataclass(frozen=True, slots=True)
class WarmNodes:
    """Keeps nodes of the wanted kinds warm; implements `aemesh.worker.warmth.Warm`."""

    spares: Spares
    find: Callable[[str], Engine] = find_engine

    @property
    def changed(self) -> trio.Event:
        """Set when there are others than before, or they take other memory."""
        return self.spares.changed

    def told(self) -> tuple[int, int]:
        """Return how many wait, and the bytes of memory that they take."""
        return len(self.spares.waiting), self.spares.memory

    def plain(self) -> tuple[NodeKind, ...]:
        """Return a node of each engine that is installed, as it is."""
        return tuple(NodeKind(name) for name in engine_names())

    def want(self, kinds: Sequence[NodeKind]) -> None:
        """Have nodes of these kinds, the likeliest first."""
        self.spares.want(list(self._specs(kinds)))

    def _specs(self, kinds: Iterable[NodeKind]) -> Iterator[JobSpec]:
        for kind in kinds:
            with suppress(EngineError, UnknownNameError):  # not installed here
                spec = self.find(kind.engine).spare_node()
                if spec is not None:
                    yield replace(spec, preload=kind.preload)
