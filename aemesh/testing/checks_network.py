"""What every `aemesh.net.transport.Network` must do, real or in memory.

Call `check_network` with a factory: an async context manager of a network that dials
and one that is dialled, and the address at which the second one listens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

import trio

from aemesh.errors import SettingsError, UnreachableError
from aemesh.model.address import Address
from aemesh.net.transport import Connection, Network

_LONG = 300_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts of one network; `host` is where the second one is reached."""

    near: Network
    far: Network
    host: str


Factory = Callable[[], AbstractAsyncContextManager[Pair]]


async def check_network(factory: Factory) -> None:
    """Hold a network to everything below; raises `AssertionError`."""
    for check in (
        _check_echo,
        _check_both_ends_agree_on_addresses,
        _check_many_at_once,
        _check_an_end_is_seen,
        _check_nobody_listens,
        _check_a_taken_port_is_told,
        _check_no_one_is_served_after_the_end,
    ):
        async with factory() as pair:
            with trio.fail_after(20):
                await check(pair)


async def _echo(connection: Connection) -> None:
    async with connection.stream as stream:
        async for data in stream:
            await stream.send_all(data)


async def _read(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        assert piece, "the stream ended early"
        data += piece
    return data


async def _check_echo(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, _echo)
        connection = await pair.near.dial(address)
        sent = bytes(range(256)) * (_LONG // 256)
        async with connection.stream as stream:
            nursery.start_soon(stream.send_all, sent)
            assert await _read(stream, len(sent)) == sent
        nursery.cancel_scope.cancel()


async def _check_both_ends_agree_on_addresses(pair: Pair) -> None:
    seen: list[Connection] = []

    async def look(connection: Connection) -> None:
        seen.append(connection)
        await _echo(connection)

    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, look)
        connection = await pair.near.dial(address)
        async with connection.stream as stream:
            await stream.send_all(b"x")
            await _read(stream, 1)
            assert connection.remote == address
            assert seen[0].local == address
            assert seen[0].remote == connection.local
        nursery.cancel_scope.cancel()


async def _check_many_at_once(pair: Pair) -> None:
    """A handler that takes its time holds up nobody else."""
    answered: list[int] = []

    async def one(address: Address, number: int) -> None:
        connection = await pair.near.dial(address)
        async with connection.stream as stream:
            await stream.send_all(bytes((number,)))
            assert await _read(stream, 1) == bytes((number,))
            answered.append(number)

    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, _echo)
        silent = await pair.near.dial(address)
        async with trio.open_nursery() as callers:
            for number in range(20):
                callers.start_soon(one, address, number)
        assert sorted(answered) == list(range(20))
        await silent.stream.aclose()
        nursery.cancel_scope.cancel()


async def _check_an_end_is_seen(pair: Pair) -> None:
    ended = trio.Event()

    async def until_end(connection: Connection) -> None:
        async with connection.stream as stream:
            assert await stream.receive_some(10) == b""
        ended.set()

    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, until_end)
        connection = await pair.near.dial(address)
        await connection.stream.aclose()
        await ended.wait()
        nursery.cancel_scope.cancel()


async def _check_nobody_listens(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, _echo)
        nursery.cancel_scope.cancel()
    await _expect_unreachable(pair, address)


async def _check_a_taken_port_is_told(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, _echo)
        try:
            await pair.far.serve(_echo, port=address.port, hosts=(pair.host,))
        except SettingsError as exc:
            assert str(address.port) in str(exc)  # noqa: PT017 - not a test itself
        else:
            raise AssertionError("two listen on one port")  # noqa: EM101
        nursery.cancel_scope.cancel()


async def _check_no_one_is_served_after_the_end(pair: Pair) -> None:
    """Cancelling `serve` cancels its handlers, and the port is free again."""
    handling = trio.Event()
    cancelled = trio.Event()

    async def hang(connection: Connection) -> None:
        handling.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
            await trio.aclose_forcefully(connection.stream)

    async with trio.open_nursery() as nursery:
        address = await _serve(nursery, pair, hang)
        connection = await pair.near.dial(address)
        await handling.wait()
        nursery.cancel_scope.cancel()
    assert cancelled.is_set()
    await _expect_end(connection)
    async with trio.open_nursery() as nursery:
        again = await _serve(nursery, pair, _echo, port=address.port)
        assert again == address
        nursery.cancel_scope.cancel()


async def _expect_end(connection: Connection) -> None:
    with suppress(trio.BrokenResourceError):
        assert await connection.stream.receive_some(1) == b""
    await connection.stream.aclose()


async def _expect_unreachable(pair: Pair, address: Address) -> None:
    try:
        await pair.near.dial(address)
    except UnreachableError as exc:
        assert str(address) in str(exc)  # noqa: PT017 - not a test itself
        assert exc.why  # noqa: PT017 - not a test itself
    else:
        raise AssertionError("somebody answers")  # noqa: EM101


async def _serve(
    nursery: trio.Nursery,
    pair: Pair,
    handler: Callable[[Connection], object],
    *,
    port: int = 0,
) -> Address:
    async def serve(*, task_status: trio.TaskStatus[int]) -> None:
        await pair.far.serve(
            handler,  # type: ignore[arg-type]
            port=port,
            hosts=(pair.host,),
            task_status=task_status,
        )

    return Address(pair.host, await nursery.start(serve))
