"""A worker's control API, as HTTP and JSON.

| request | answer |
| --- | --- |
| ``GET /v1/departure`` | `DepartureView` |
| ``POST /v1/departure`` | lines of `DepartureView` as it goes on; body `Agree` |
| ``DELETE /v1/departure`` | `DepartureView`: it stays |

Who may use it, and how it is served: `aemesh.host.control`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aemesh.errors import UsageError, quoted
from aemesh.host.control import http
from aemesh.model.group import Haste
from aemesh.worker.control_wire import Agree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from aemesh.model.view import DepartureView

_WHY = "its owner wants it back"


class Leaves(Protocol):
    """What a worker lets its owner do; `aemesh.worker.parting.Parting`."""

    def agree(self, end: float | None, haste: Haste, why: str) -> None:
        """Leave at `end`, or soon; raises `RefusedError`."""

    def call_off(self) -> None:
        """Stay after all; raises `RefusedError`."""

    def view(self) -> DepartureView:
        """Return how things stand."""

    def follow(self) -> AsyncGenerator[DepartureView]:
        """Yield how things stand, and whenever that changes."""


def make_server(leaves: Leaves) -> http.Server:
    """Return what serves a worker's control connections."""
    routes = _Routes(leaves)
    path = "/v1/departure"
    app = http.make_app(
        (
            ("GET", path, routes.show),
            ("POST", path, routes.agree),
            ("DELETE", path, routes.call_off),
        )
    )
    return http.Server(app)


class _Routes:
    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves

    async def show(self, _request: Request) -> ASGIApp:
        return http.json_answer(self._leaves.view())

    async def agree(self, request: Request) -> ASGIApp:
        wish = await http.body_of(request, Agree)
        try:
            haste = Haste(wish.haste)
        except ValueError:
            msg = f"unknown haste {quoted(wish.haste)}"
            raise UsageError(msg, why="known: late, soon, now") from None
        self._leaves.agree(wish.end or None, haste, _WHY)
        return http.Stream(http.MEDIA_LINES, http.as_lines(self._leaves.follow()))

    async def call_off(self, _request: Request) -> ASGIApp:
        self._leaves.call_off()
        return http.json_answer(self._leaves.view())
