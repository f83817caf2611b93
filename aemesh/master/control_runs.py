"""Durable runs in the control API.

| request | answer |
| --- | --- |
| ``GET /v1/runs`` | list of `RunView`, the one used last first |
| ``POST /v1/runs`` | `RunView`; body `OpenRun` |
| ``GET /v1/runs/GROUP/KEY`` | `RunView` |
| ``DELETE /v1/runs/GROUP/KEY`` | 204 |
| ``GET /v1/runs/GROUP/KEY/items?life=N&after=N&follow=1`` | lines of `ItemView` |
| ``POST /v1/runs/GROUP/KEY/values`` | values; body `AskValues` |
| ``POST /v1/runs/GROUP/KEY/commit`` | 204; body a parcel of `CommitValues` |

`life` tells a run from one of the same key that was begun anew; 0 is the present one.
Values come one behind the other, in the order in which they were asked for::

    u8   0: a value, 1: the item is not committed, 2: an error, the last one
    u32  length of what follows, big endian
    ...  the value, or the error as JSON
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from aemesh import errors, limits
from aemesh.errors import BadMessage, UsageError
from aemesh.host.control import http
from aemesh.host.control.http import MEDIA_LINES, Stream
from aemesh.master.control_wire import AskValues, CommitValues, OpenRun
from aemesh.model.names import group_name_untrusted
from aemesh.model.run import (
    Commit,
    Piece,
    RunName,
    item_id_untrusted,
    run_key_untrusted,
)
from aemesh.protocol.parcel import cut_untrusted, unpack_untrusted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import TypeVar

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from aemesh.host.ledger.clerk import Clerk
    from aemesh.model.names import GroupName
    from aemesh.model.run import ItemId, ItemView, RunKey

    _T = TypeVar("_T")

_MEDIA_BYTES = "application/octet-stream"
_VALUE, _ABSENT, _ERROR = range(3)


def run_table(
    clerk: Clerk, *, check_group: Callable[[GroupName], object]
) -> tuple[tuple[str, str, http.Endpoint], ...]:
    """Return the endpoints; `check_group` raises for a group that is not there."""
    routes = _Routes(clerk, check_group)
    run = "/v1/runs/{group}/{key}"
    return (
        ("GET", "/v1/runs", routes.runs),
        ("POST", "/v1/runs", routes.open),
        ("GET", run, routes.show),
        ("DELETE", run, routes.drop),
        ("GET", f"{run}/items", routes.items),
        ("POST", f"{run}/values", routes.values),
        ("POST", f"{run}/commit", routes.commit),
    )


class _Routes:
    """The endpoints: each reads a request, asks the clerk, and answers."""

    def __init__(
        self, clerk: Clerk, check_group: Callable[[GroupName], object]
    ) -> None:
        self._clerk = clerk
        self._check_group = check_group

    async def runs(self, _request: Request) -> ASGIApp:
        return http.json_answer(await self._clerk.runs())

    async def open(self, request: Request) -> ASGIApp:
        wish = await http.body_of(request, OpenRun)
        group = _typed(group_name_untrusted, wish.group)
        key = _typed(run_key_untrusted, wish.key)
        self._check_group(group)
        view = await self._clerk.open_run(
            group,
            key,
            fingerprint=wish.fingerprint,
            title=wish.title,
            total=wish.total,
            fresh=wish.fresh,
        )
        return http.json_answer(view)

    async def show(self, request: Request) -> ASGIApp:
        return http.json_answer(await self._clerk.run(*_run_of(request)))

    async def drop(self, request: Request) -> ASGIApp:
        await self._clerk.drop(*_run_of(request))
        return Response(status_code=204)

    async def items(self, request: Request) -> ASGIApp:
        asked = request.query_params
        after, life = (_number(asked.get(name, "0")) for name in ("after", "life"))
        run = await self._named(request, life)
        follow = asked.get("follow", "0") != "0"
        pages = self._clerk.items(run, after, follow=follow)
        return Stream(MEDIA_LINES, _lines(pages))

    async def values(self, request: Request) -> ASGIApp:
        wish = await http.body_of(request, AskValues)
        run = await self._named(request, wish.life)
        ids = [_typed(item_id_untrusted, one) for one in wish.items]
        return Stream(_MEDIA_BYTES, _values(self._clerk, run, ids))

    async def commit(self, request: Request) -> ASGIApp:
        data = await http.bytes_of(request, most=limits.RUN_MESSAGE_BYTES)
        try:
            words, blob = unpack_untrusted(data)
            wish = msgspec.json.decode(words, type=CommitValues)
            values = cut_untrusted(blob, [item.size for item in wish.items])
        except (msgspec.MsgspecError, ValueError, BadMessage) as error:
            msg = "the values cannot be read"
            raise UsageError(msg, why=errors.quoted(str(error))) from None
        run = await self._named(request, wish.life)
        pieces = tuple(
            Piece(_typed(item_id_untrusted, item.id), value, item.title)
            for item, value in zip(wish.items, values, strict=True)
        )
        await self._clerk.apply(Commit(run, pieces, wish.worker))
        return Response(status_code=204)

    async def _named(self, request: Request, life: int) -> RunName:
        group, key = _run_of(request)
        return RunName(group, key, life or (await self._clerk.run(group, key)).life)


async def _lines(pages: AsyncGenerator[list[ItemView]]) -> AsyncGenerator[bytes]:
    """Yield each page as lines of JSON, in one piece; an error is the last line."""
    try:
        async with http.closing(pages):
            async for page in pages:
                yield b"".join(msgspec.json.encode(item) + b"\n" for item in page)
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        yield msgspec.json.encode(http.told_of(error).fields()) + b"\n"


async def _values(
    clerk: Clerk, run: RunName, ids: Sequence[ItemId]
) -> AsyncGenerator[bytes]:
    try:
        while ids:
            page = await clerk.values(run, ids)
            ids = ids[len(page) :]
            yield b"".join(
                _framed(_ABSENT if value is None else _VALUE, value or b"")
                for value in page
            )
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        yield _framed(_ERROR, msgspec.json.encode(http.told_of(error).fields()))


def _framed(kind: int, data: bytes) -> bytes:
    return bytes((kind,)) + len(data).to_bytes(4, "big") + data


def _run_of(request: Request) -> tuple[GroupName, RunKey]:
    path = request.path_params
    group = _typed(group_name_untrusted, path["group"])
    return group, _typed(run_key_untrusted, path["key"])


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"expected a number, got {errors.quoted(text)}"
        raise UsageError(msg)
    return int(text)


def _typed(parse: Callable[[str], _T], text: str) -> _T:
    """Blame what cannot be parsed on who typed it."""
    try:
        return parse(text)
    except BadMessage as error:
        raise UsageError(error.what) from None
