"""A connection becomes a channel, or is closed: the real ends over memory."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    KeyChangedError,
    RefusedError,
    UnreachableError,
)
from aemesh.model.trust import Decision, Mode, Reason, Role, Verdict
from aemesh.protocol.hello import Purpose
from aemesh.testing.nodes import (
    NO,
    OK,
    PENDING,
    FixedDoorman,
    Node,
    connection_pair,
    shake_hands,
)


@pytest.fixture
def master() -> Node:
    return Node.fresh(Role.MASTER)


@pytest.fixture
def worker() -> Node:
    return Node.fresh(Role.WORKER)


async def both(client, server, *, ends=None, expected=None):
    """Return what each side came to: a channel or an error."""
    dialled, accepted = connection_pair(ends)
    came: dict[str, object] = {}

    async def note(name, function, *args, **kwargs):
        try:
            came[name] = await function(*args, **kwargs)
        except AemeshError as exc:
            came[name] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "server", server.shaker.accept, accepted)
        await note("client", client.shaker.connect, dialled, expected=expected)
    return came["client"], came["server"]


async def test_two_that_say_ok_have_a_channel(master, worker):
    near, far = await shake_hands(master, worker, expected=worker.identity.key_id)

    assert near.peer.key == worker.identity.public
    assert near.peer.role is Role.WORKER
    assert far.peer.key == master.identity.public
    assert far.peer.name == "desk"
    assert far.peer.address == "192.0.2.1:40001"
    await near.stream.send_all(b"to the worker")
    assert await far.stream.receive_some() == b"to the worker"
    await far.stream.send_all(b"to the master")
    assert await near.stream.receive_some() == b"to the master"
    assert [peer.name for peer in master.doorman.committed] == ["lab-1"]
    assert [peer.name for peer in worker.doorman.committed] == ["desk"]


async def test_either_role_may_dial(master, worker):
    near, far = await shake_hands(worker, master)

    assert near.peer.role is Role.MASTER
    assert far.peer.role is Role.WORKER


async def test_it_is_tls_1_3_with_no_ticket(master, worker):
    """Shows: T10."""
    near, far = await shake_hands(master, worker)

    for channel in (near, far):
        assert channel.stream.version() == "TLSv1.3"
        assert channel.stream.selected_alpn_protocol() == "aemesh/1"
        assert channel.stream.session_reused is False


async def test_both_ends_know_what_the_channel_is_for(master, worker):
    near, far = await shake_hands(master, worker, purpose=Purpose.STREAM)

    assert near.purpose is Purpose.STREAM
    assert far.purpose is Purpose.STREAM


async def test_a_no_of_the_server_reaches_the_client_with_its_reason(master, worker):
    worker.doorman.verdict = NO

    near, far = await both(master, worker)

    assert isinstance(near, RefusedError)
    assert str(near) == 'lab-1 refused us: declined, "a person said no"'
    assert isinstance(far, RefusedError)
    assert str(far) == "master desk is refused: declined, a person said no"
    assert master.doorman.heard_verdicts == [NO]
    assert master.doorman.committed == worker.doorman.committed == []


async def test_a_no_of_the_client_reaches_the_server_with_its_reason(master, worker):
    master.doorman.verdict = NO

    near, far = await both(master, worker)

    assert str(near) == "worker lab-1 is refused: declined, a person said no"
    assert str(far) == 'desk refused us: declined, "a person said no"'
    assert worker.doorman.heard_verdicts == [NO]
    assert master.doorman.committed == worker.doorman.committed == []


async def test_a_changed_key_is_an_error_of_its_own_and_the_peer_is_told(
    master, worker
):
    changed = Verdict(Decision.NO, Reason.KEY_CHANGED, "known with another key")
    master.doorman.verdict = changed

    near, far = await both(master, worker)

    assert isinstance(near, KeyChangedError)
    assert isinstance(far, RefusedError)
    assert worker.doorman.heard_verdicts == [changed]


async def test_who_answers_for_another_is_not_even_greeted(master, worker):
    other = Node.fresh(Role.WORKER)

    near, far = await both(master, worker, expected=other.identity.key_id)

    assert isinstance(near, RefusedError)
    assert str(worker.identity.key_id) in str(near)  # who was meant, the caller knows
    assert isinstance(far, AemeshError)
    assert master.doorman.judged == []


async def test_a_key_that_is_not_let_in_is_refused_before_tls(master, worker):
    worker.doorman.admitting = False

    near, far = await both(master, worker)

    assert isinstance(near, UnreachableError)
    assert 'seems to refuse us: "declined"' in str(near)
    assert f"the key {master.identity.key_id} is not let in" in str(far)
    assert worker.doorman.judged == []


async def test_two_of_one_role_do_not_talk(worker):
    """Threat: 80."""
    near, far = await both(Node.fresh(Role.WORKER, name="lab-2"), worker)

    assert isinstance(near, BadMessage)
    assert isinstance(far, BadMessage)
    assert "a worker talks to a master" in str(far)


@pytest.mark.parametrize("mine", ["client", "server"])
async def test_who_could_not_keep_its_ok_says_no(master, worker, mine):
    """Of two that came at once one was quicker; the other is told why."""
    error = RefusedError("this worker belongs to another master")
    (master if mine == "client" else worker).doorman.commit_error = error

    near, far = await both(master, worker)

    outcome = {"client": near, "server": far}
    assert isinstance(outcome[mine], RefusedError)
    assert "belongs to another master" in str(outcome[mine])
    if mine == "server":
        assert isinstance(near, RefusedError)
        assert "lab-1 refused us: owned" in str(near)


async def test_a_decision_that_takes_a_person_minutes_is_waited_for(
    master, worker, autojump_clock
):
    worker.doorman.verdict = PENDING

    async def accept_later():
        await trio.sleep(limits.PENDING_AFTER - 60)
        assert master.doorman.heard_verdicts[0] == PENDING
        worker.doorman.verdict = OK

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_later)
        near, _ = await shake_hands(master, worker)

    assert near.peer.name == "lab-1"
    beats = len(worker.doorman.heard_verdicts)
    assert 0.8 < beats / (540 / limits.PENDING_EVERY) < 1.2  # a sign of life


@pytest.mark.parametrize("who", ["client", "server", "both"])
async def test_a_decision_that_does_not_come_ends_at_the_deadline(
    master, worker, autojump_clock, who, monkeypatch
):
    monkeypatch.setattr(limits, "PENDING_AFTER", 60.0)
    for name, node in (("client", master), ("server", worker)):
        if who in (name, "both"):
            node.doorman.verdict = PENDING
    start = trio.current_time()

    near, far = await both(master, worker)

    assert isinstance(near, AemeshError)
    assert isinstance(far, AemeshError)
    assert "a decision did not come within 60 s" in f"{near} {far}"
    assert trio.current_time() - start < limits.PENDING_AFTER + 5


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_person_may_also_say_no_later(master, worker, autojump_clock, who):
    slow = master if who == "client" else worker
    slow.doorman.verdict = PENDING

    async def decline_later():
        await trio.sleep(30)
        slow.doorman.verdict = NO

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decline_later)
        near, far = await both(master, worker)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)


class Gated(trio.abc.Stream):
    """A stream that swallows what is sent after `shut` was set."""

    def __init__(self, inner):
        self.inner = inner
        self.shut = False

    async def send_all(self, data):
        if self.shut:
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        return await self.inner.receive_some(max_bytes)

    async def aclose(self):
        if not self.shut:
            await self.inner.aclose()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_peer_that_falls_silent_while_a_decision_is_due_is_given_up(
    master, worker, autojump_clock, who
):
    master.doorman.verdict = worker.doorman.verdict = PENDING
    one, other = trio.testing.memory_stream_pair()
    gate = Gated(one if who == "client" else other)
    ends = (gate, other) if who == "client" else (one, gate)

    async def cut():
        await trio.sleep(10)
        gate.shut = True

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        near, far = await both(master, worker, ends=ends)

    left = far if who == "client" else near
    assert isinstance(left, UnreachableError)
    assert "nothing was heard for 8 s" in str(left)
    assert trio.current_time() - start < limits.PENDING_AFTER + 5


async def test_a_preamble_and_the_client_hello_go_in_one_piece(master):
    dialled, accepted = connection_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_swallow, master.shaker.connect(dialled, expected=None))
        flight = await accepted.stream.receive_some(100_000)
        nursery.cancel_scope.cancel()

    assert flight.startswith(b"AEMESH1\n")
    assert b"aemesh/1" in flight  # ALPN, in the ClientHello


async def _swallow(awaitable):
    with suppress(AemeshError):
        await awaitable


@pytest.mark.parametrize("flight", [1, 2, 3, 7, 1000])
async def test_bytes_that_come_in_small_pieces_are_heard_all_the_same(
    master, worker, flight
):
    one, other = trio.testing.memory_stream_pair()
    for end in (one, other):
        inner = end.receive_stream
        read = inner.receive_some

        async def few(max_bytes=None, read=read):
            return await read(min(max_bytes or flight, flight))

        inner.receive_some = few

    near, far = await shake_hands(master, worker, ends=(one, other))

    await near.stream.send_all(b"x")
    assert await far.stream.receive_some() == b"x"


async def test_the_server_takes_no_byte_of_tls_for_the_preamble(master, worker):
    """Commands that come right behind the client's ok are not lost either."""
    near, far = await shake_hands(master, worker)
    await near.stream.send_all(b"early")

    assert far.leftover + await far.stream.receive_some() == b"early"


@pytest.mark.parametrize("cancelled_at", range(0, 40, 3))
async def test_a_handshake_cancelled_anywhere_leaves_no_open_stream(
    master, worker, cancelled_at, autojump_clock
):
    closed = []

    class Noting(Gated):
        async def aclose(self):
            closed.append(self)
            await super().aclose()

    one, other = (Noting(end) for end in trio.testing.memory_stream_pair())
    done = []

    async def step(scope):
        for _ in range(cancelled_at):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, scope)
            done.append(await shake_hands(master, worker, ends=(one, other)))

    assert done or {one, other} <= set(closed)


async def test_a_clock_that_is_wrong_is_told_to_the_doorman(master, worker):
    """Threat: 49."""
    worker.clock.wall -= 3600

    await shake_hands(master, worker)

    assert worker.doorman.skews[0] == 3600.0
    assert master.doorman.skews[0] == -3600.0


async def test_a_mode_that_differs_is_told_to_both_doormen(master):
    """Threat: 45."""
    worker = Node.fresh(Role.WORKER, mode=Mode.OPEN)

    await shake_hands(master, worker)

    assert master.doorman.judged[0].mode is Mode.OPEN
    assert worker.doorman.judged[0].mode is Mode.LEAP


async def test_a_bug_of_the_doorman_closes_the_connection(master, worker):
    class Broken(FixedDoorman):
        def judge(self, *_, **__):
            raise ZeroDivisionError

    worker.doorman = Broken()
    dialled, accepted = connection_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_swallow, master.shaker.connect(dialled, expected=None))
        with pytest.raises(ZeroDivisionError):
            await worker.shaker.accept(accepted)

    with pytest.raises(trio.ClosedResourceError):
        await accepted.stream.send_all(b"x")


async def test_a_context_for_dialling_serves_any_number_of_peers(master):
    shaker = master.shaker
    assert isinstance(shaker.client, ssl.SSLContext)
    for name in ("lab-1", "lab-2", "lab-3"):
        worker = Node.fresh(Role.WORKER, name=name)
        dialled, accepted = connection_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.shaker.accept, accepted)
            channel = await shaker.connect(dialled, expected=None)
        assert channel.peer.name == name


async def test_the_tls_context_of_a_peer_is_made_once_and_few_are_kept(
    worker: Node,
) -> None:
    shaker = worker.shaker
    known = Node.fresh(Role.MASTER).identity.certificate

    first = shaker._server_untrusted(known)
    assert shaker._server_untrusted(known) is first

    for _ in range(limits.SERVER_CONTEXTS):
        shaker._server_untrusted(Node.fresh(Role.MASTER).identity.certificate)
    assert len(shaker.servers) == limits.SERVER_CONTEXTS
    assert shaker._server_untrusted(known) is not first
