"""Links: two real ends over TLS in memory, and raw peers that break the rules."""

from __future__ import annotations

import logging
from contextlib import suppress

import msgspec
import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import (
    BadMessage,
    RefusedError,
    RequestFailedError,
    UnreachableError,
)
from aemesh.model.trust import Role
from aemesh.net.link import Closed, Ending, open_link
from aemesh.net.shake import Channel
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.session import Answer, Notice, Pulse, Request, Session
from aemesh.testing.nodes import Node, shake_hands

ASK = wire.Assign(group="A", generation=1)
CSR = wire.Assigned(csr="PEM")


class Room:
    """What one direction of a cable holds before its sender waits."""

    def __init__(self) -> None:
        self.capacity = 1_000_000
        self.held = 0
        self.closed = False
        self.changed = trio.Event()

    def change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Bounded(trio.abc.Stream):
    """An end of a memory stream whose sender waits for the other end to read."""

    def __init__(self, inner, to: Room, fro: Room) -> None:
        self.inner, self.to, self.fro = inner, to, fro

    async def send_all(self, data):
        self.to.held += len(data)
        await self.inner.send_all(data)
        while self.to.held > self.to.capacity:
            if self.to.closed:
                raise trio.BrokenResourceError
            await self.to.changed.wait()

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None):
        data = await self.inner.receive_some(max_bytes)
        self.fro.held -= len(data)
        self.fro.change()
        return data

    async def aclose(self):
        self.to.closed = self.fro.closed = True
        self.to.change()
        self.fro.change()
        await self.inner.aclose()


async def channels(*, slow: bool = False) -> tuple[Channel, Channel]:
    """Return both ends of a channel; on a slow one a send waits for its reader."""
    one, other = trio.testing.memory_stream_pair()
    rooms = Room(), Room()
    ends = Bounded(one, *rooms), Bounded(other, *reversed(rooms))
    pair = await shake_hands(
        Node.fresh(Role.MASTER), Node.fresh(Role.WORKER), ends=ends
    )
    for room in rooms:
        room.capacity = 0 if slow else room.capacity
    return pair


async def no_handler(_link, body):
    raise AssertionError(body)


async def say_done(_link, _body):
    return wire.Done()


class RawPeer:
    """A peer that speaks the protocol by hand."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.session = Session(now=0.0)

    async def send(self, data: bytes) -> None:
        await self.channel.stream.send_all(data)

    async def hear(self, count: int = 1, *, beats: bool = False):
        """Return the next messages that are no beats."""
        events = []
        while len(events) < count:
            data = await self.channel.stream.receive_some(limits.CHUNK_BYTES)
            assert data or beats, "the link ended"
            events += self.session.receive_untrusted(bytes(data), 0.0)
        return events

    async def swallow(self):
        """Read whatever comes, for ever."""
        while await self.channel.stream.receive_some(limits.CHUNK_BYTES):
            pass

    async def beat(self):
        """Be alive, and no more, for ever."""
        while True:
            await self.send(self.session.notice(wire.Beat(), 0.0))
            await trio.sleep(limits.PING_EVERY)


def frame(kind: str, **fields: object) -> bytes:
    data = msgspec.json.encode({"t": kind, **fields})
    return encode_frame(data, limit=limits.FRAME_BYTES)


async def test_a_request_is_answered(autojump_clock):
    near, far = await channels()
    asked = []

    async def handle(link, body):
        asked.append((link.peer.name, body))
        return CSR

    async with open_link(far, handle), open_link(near, no_handler) as link:
        assert await link.request(ASK, wire.Assigned) == CSR

    assert asked == [("desk", ASK)]


async def test_answers_come_back_to_who_asked_in_any_order(autojump_clock):
    near, far = await channels()
    came = []

    async def handle(_link, body):
        await trio.sleep(body.term_after)
        return wire.Left(moved=int(body.term_after), lost=0)

    async def ask(link, seconds):
        body = wire.End(job="j", term_after=seconds)
        came.append((await link.request(body, wire.Left)).moved)

    async with (
        open_link(far, handle),
        open_link(near, no_handler) as link,
        trio.open_nursery() as nursery,
    ):
        for seconds in (3.0, 1.0, 2.0):
            nursery.start_soon(ask, link, seconds)

    assert came == [1, 2, 3]


async def test_both_sides_may_ask_at_once(autojump_clock):
    near, far = await channels(slow=True)

    async with (
        open_link(far, say_done) as worker,
        open_link(near, say_done) as master,
        trio.open_nursery() as nursery,
    ):
        for _ in range(limits.REQUESTS_IN_FLIGHT):
            nursery.start_soon(master.request, ASK, wire.Done)
            nursery.start_soon(worker.request, ASK, wire.Done)


async def test_what_came_right_behind_the_verdict_is_handled(autojump_clock):
    near, far = await channels()
    early = frame("assign", n=1, b={"group": "A", "generation": 1})
    far = Channel(far.stream, far.connection, far.peer, far.purpose, early)
    raw = RawPeer(near)
    raw.session.request(ASK, 0.0)

    async with open_link(far, say_done):
        assert await raw.hear() == [Answer(1, wire.Done())]


async def test_an_error_of_the_handler_is_an_answer(autojump_clock):
    near, far = await channels()

    async def refuse(_link, _body):
        raise RefusedError("the worker is held", why="\x1b[2J")

    async with open_link(far, refuse), open_link(near, no_handler) as link:
        for _ in range(2):
            with pytest.raises(RequestFailedError) as caught:
                await link.request(ASK, wire.Assigned)
        assert link.closed is None

    assert str(caught.value).startswith('lab-1 could not do it: "the worker is held')
    assert str(caught.value).isprintable()


async def test_a_bug_of_the_handler_is_answered_logged_and_ends_nothing(
    autojump_clock, caplog
):
    near, far = await channels()
    caplog.set_level(logging.ERROR)

    async def trip(_link, body):
        if body == ASK:
            raise ZeroDivisionError
        return wire.Done()

    async with open_link(far, trip), open_link(near, no_handler) as link:
        with pytest.raises(RequestFailedError, match="a bug"):
            await link.request(ASK, wire.Assigned)
        await link.tell(ASK)  # nobody waits for an answer to this one
        assert await link.request(wire.Left(moved=0, lost=0), wire.Done)

    assert "assign was not handled" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_type_that_the_peer_does_not_know_is_told_with_a_hint(autojump_clock):
    near, far = await channels()

    async def unsupported(_link, body):
        return wire.Unsupported(what=wire.NAMES[type(body)])

    async with open_link(far, unsupported), open_link(near, no_handler) as link:
        with pytest.raises(RequestFailedError, match="does not know") as caught:
            await link.request(ASK, wire.Assigned)

    assert caught.value.hint == "update aemesh on lab-1"


async def test_a_nonsense_type_is_answered_and_ends_nothing(autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)
    raw.session.request(ASK, 0.0)
    raw.session.request(ASK, 0.0)

    async with open_link(far, say_done) as link:
        await raw.send(frame("dance", n=1))
        assert await raw.hear() == [Answer(1, wire.Unsupported(what="dance"))]
        await raw.send(frame("assign", n=2, b={"group": "A", "generation": 1}))
        assert await raw.hear() == [Answer(2, wire.Done())]
        assert link.closed is None


async def test_an_answer_of_another_kind_ends_the_link(autojump_clock):
    near, far = await channels()

    async with open_link(far, say_done), open_link(near, no_handler) as link:
        with pytest.raises(BadMessage, match="lab-1 answered Done, not Assigned"):
            await link.request(ASK, wire.Assigned)
        assert link.closed.ending is Ending.BROKE_PROTOCOL


@pytest.mark.parametrize(
    "data",
    [
        frame("done", re=9),
        frame("assign", n=1, b={"group": 1}),
        encode_frame(b"[" * 30000, limit=limits.FRAME_BYTES),
        b"\x80\x00\x00\x00",
        b"GET / HTTP/1.1\r\n",
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_left(data, autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)

    async with open_link(far, no_handler) as link:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_gone, link)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(raw.swallow)
            await raw.send(data)
            closed = await link.wait_closed()
            nursery.cancel_scope.cancel()
        with pytest.raises(UnreachableError, match="broke the protocol"):
            await link.tell(ASK)

    assert closed.ending is Ending.BROKE_PROTOCOL
    assert closed.detail.isprintable()
    with trio.fail_after(1):
        await raw.swallow()  # until its end


async def _expect_gone(link):
    with pytest.raises(UnreachableError):
        await link.request(ASK, wire.Assigned)


async def test_requests_beyond_the_bound_are_answered_busy(autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)
    inside = 0

    async def hang(_link, _body):
        nonlocal inside
        inside += 1
        await trio.sleep_forever()

    count = 2 * limits.REQUESTS_IN_FLIGHT
    async with open_link(far, hang):
        asked = [raw.session.request(ASK, 0.0)[1] for _ in range(count)]
        await raw.send(b"".join(asked))
        busy = await raw.hear(count - limits.REQUESTS_IN_FLIGHT)

    assert inside == limits.REQUESTS_IN_FLIGHT
    assert {answer.body for answer in busy} == {
        wire.Failed(error="peer/busy", what="busy")
    }


@pytest.mark.parametrize(
    "flood",
    [
        frame("assign", n=1, b={"group": "A", "generation": 1}),
        frame("dance", n=1),
        frame("end", n=1, b={"job": "j", "term_after": 0}),
    ],
    ids=["requests", "nonsense", "quick requests"],
)
async def test_a_peer_that_asks_and_does_not_read_is_not_read_further(
    flood, autojump_clock
):
    """What it makes us hold is bounded; at the end it is silence on its own line."""
    near, far = await channels(slow=True)
    raw = RawPeer(near)
    handled = 0

    async def answer(_link, _body):
        nonlocal handled
        handled += 1
        return wire.Done()

    async def pour():
        with suppress(trio.BrokenResourceError):
            while True:
                await raw.send(flood * 100)

    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery, open_link(far, answer) as link:
        if b"dance" in flood:
            with trio.move_on_after(10):
                await raw.send(flood * 5000)
        else:
            nursery.start_soon(pour)
            closed = await link.wait_closed()
            assert closed.ending is Ending.SILENT
        living = trio.lowlevel.current_statistics().tasks_living - tasks
        assert living < limits.REQUESTS_IN_FLIGHT + 20
        link._session.check()
    assert handled <= 2 * limits.REQUESTS_IN_FLIGHT


async def test_a_silent_peer_is_suspect_and_lost_at_the_deadlines(autojump_clock):
    near, far = await channels()
    start = trio.current_time()

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        nursery.start_soon(RawPeer(near).swallow)
        nursery.start_soon(_expect_gone, link)
        assert await link.wait_pulse_change() is Pulse.SUSPECT
        assert trio.current_time() - start == pytest.approx(limits.SUSPECT_AFTER)
        closed = await link.wait_closed()
        assert trio.current_time() - start == pytest.approx(limits.LOST_AFTER)

    assert closed == Closed(Ending.SILENT, "nothing was heard for 4 s")


async def test_a_suspect_that_is_heard_again_is_alive(autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        nursery.start_soon(raw.swallow)
        assert await link.wait_pulse_change() is Pulse.SUSPECT
        nursery.start_soon(raw.beat)
        assert await link.wait_pulse_change() is Pulse.ALIVE
        await trio.sleep(20)
        assert link.closed is None
        nursery.cancel_scope.cancel()


async def test_two_idle_ends_stay_linked_for_hours(autojump_clock):
    near, far = await channels()

    async with open_link(far, no_handler) as one, open_link(near, no_handler) as two:
        await trio.sleep(600.3)
        assert one.closed is None
        assert two.closed is None
        assert one.pulse is two.pulse is Pulse.ALIVE


async def test_who_sends_to_a_peer_that_neither_reads_nor_speaks_gets_away(
    autojump_clock,
):
    """Nothing waits for such a peer longer than the deadline: not even a send."""
    near, far = await channels(slow=True)
    start = trio.current_time()
    assert near is not None

    async with open_link(far, no_handler) as link, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_expect_gone, link)

    assert link.closed.ending is Ending.SILENT
    assert trio.current_time() - start < limits.LOST_AFTER + 1.5


async def test_a_peer_that_beats_but_does_not_read_is_left(autojump_clock):
    """Also when whoever had something to say to it has given up."""
    near, far = await channels(slow=True)
    start = trio.current_time()

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        nursery.start_soon(RawPeer(near).beat)
        for _ in range(3):
            with trio.move_on_after(1) as scope:
                await link.tell(ASK)
            assert scope.cancelled_caught
        closed = await link.wait_closed()
        nursery.cancel_scope.cancel()

    assert closed == Closed(Ending.SILENT, "it did not read for 20 s")
    assert trio.current_time() - start < limits.FRAME_AFTER + 1


async def test_a_link_that_is_let_go_holds_no_sender(autojump_clock):
    """A newer link took its place, and its owner still waits in a send."""
    near, far = await channels(slow=True)
    start = trio.current_time()

    async def replace(link):
        await trio.sleep(1)
        link.close("a newer link took its place")

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        nursery.start_soon(RawPeer(near).beat)
        nursery.start_soon(replace, link)
        with pytest.raises(UnreachableError, match="was let go"):
            await link.tell(ASK)
        nursery.cancel_scope.cancel()

    assert trio.current_time() - start < 3


async def test_a_close_is_told_on_the_other_side_with_its_reason(autojump_clock):
    near, far = await channels()

    async with open_link(far, no_handler) as worker:
        async with open_link(near, no_handler) as master:
            master.close("noon \x07")
            with pytest.raises(UnreachableError, match="was let go"):
                await master.request(ASK, wire.Assigned)
        closed = await worker.wait_closed()

    assert closed == Closed(Ending.BYE, r'"noon \x07"')
    assert master.closed == Closed(Ending.OURS, "noon \x07")


async def test_the_end_of_the_block_is_a_good_bye(autojump_clock):
    near, far = await channels()

    async with open_link(far, no_handler) as worker:
        async with open_link(near, no_handler):
            pass
        closed = await worker.wait_closed()

    assert closed == Closed(Ending.BYE)


async def test_a_connection_that_breaks_is_told_at_once(autojump_clock):
    near, far = await channels()
    start = trio.current_time()

    async with open_link(far, no_handler) as link, trio.open_nursery() as nursery:
        nursery.start_soon(_expect_gone, link)
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(near.connection.stream)
        closed = await link.wait_closed()

    assert closed.ending is Ending.CLOSED
    assert trio.current_time() == start


async def test_what_comes_behind_a_good_bye_is_not_done(autojump_clock):
    near, far = await channels()
    done = []

    async def note(_link, body):
        done.append(body)

    async with open_link(far, note) as link:
        bye = frame("bye", b={"reason": "noon"})
        await RawPeer(near).send(bye + frame("done") + frame("done", n=1))
        await link.wait_closed()
        await trio.testing.wait_all_tasks_blocked()

    assert done == []


async def test_an_open_request_ends_with_the_good_bye_of_the_peer(autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)

    async with open_link(far, no_handler) as link, trio.open_nursery() as nursery:
        nursery.start_soon(_expect_gone, link)
        assert await raw.hear() == [Request(1, ASK)]
        await raw.send(frame("bye"))


async def test_who_is_cancelled_in_the_middle_of_a_send_cuts_nothing_off(
    autojump_clock,
):
    """Behind half a frame, whatever came would be read as its rest."""
    near, far = await channels(slow=True)
    raw = RawPeer(near)

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        with trio.move_on_after(0.5) as scope:
            await link.tell(ASK)
        assert scope.cancelled_caught
        nursery.start_soon(link.tell, wire.Left(moved=1, lost=2))
        assert await raw.hear(2) == [Notice(ASK), Notice(wire.Left(moved=1, lost=2))]
        assert link.closed is None
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_before_its_turn_has_sent_nothing(autojump_clock):
    near, far = await channels(slow=True)
    raw = RawPeer(near)

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        nursery.start_soon(link.tell, ASK)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await link.tell(ASK)
        assert scope.cancelled_caught
        nursery.start_soon(link.tell, wire.Left(moved=1, lost=2))
        assert await raw.hear(2) == [Notice(ASK), Notice(wire.Left(moved=1, lost=2))]
        nursery.cancel_scope.cancel()


async def test_a_request_that_is_given_up_while_it_waits_ends_nothing(autojump_clock):
    near, far = await channels()
    raw = RawPeer(near)

    async with trio.open_nursery() as nursery, open_link(far, no_handler) as link:
        with trio.move_on_after(1) as scope:
            await link.request(ASK, wire.Assigned)
        assert scope.cancelled_caught
        (asked,) = await raw.hear()
        late = raw.session.answer(asked.number, CSR, 0.0)
        await raw.send(late)
        nursery.start_soon(raw.beat)
        await trio.sleep(10)
        assert link.closed is None
        nursery.cancel_scope.cancel()


async def test_a_request_that_was_late_before_it_began_ends_nothing(autojump_clock):
    near, far = await channels()

    async with open_link(far, say_done), open_link(near, no_handler) as link:
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.request(ASK, wire.Done)
        assert scope.cancelled_caught
        assert await link.request(ASK, wire.Done)


async def test_an_error_of_the_block_leaves_as_itself_and_says_good_bye(
    autojump_clock,
):
    near, far = await channels()

    async with open_link(far, no_handler) as worker:
        with pytest.raises(RefusedError, match="of the body"):
            async with open_link(near, no_handler):
                raise RefusedError("of the body")
        assert (await worker.wait_closed()).ending is Ending.BYE


async def test_a_block_that_is_cancelled_says_good_bye(autojump_clock):
    near, far = await channels()

    async with open_link(far, no_handler) as worker:
        with trio.move_on_after(1):
            async with open_link(near, no_handler):
                await trio.sleep_forever()
        assert (await worker.wait_closed()).ending is Ending.BYE


async def test_the_end_waits_for_no_peer_that_does_not_read(autojump_clock):
    near, far = await channels(slow=True)
    start = trio.current_time()
    assert near is not None

    async with open_link(far, no_handler) as link:
        pass

    assert trio.current_time() - start < 1
    assert link.closed.ending is Ending.OURS


async def test_its_line_tells_how_it_is(autojump_clock):
    near, far = await channels()

    async with open_link(far, no_handler), open_link(near, no_handler) as link:
        assert repr(link) == "<Link to lab-1 at 192.0.2.2:7472: alive>"

    assert repr(link) == "<Link to lab-1 at 192.0.2.2:7472: was let go>"


async def test_a_notice_reaches_the_handler(autojump_clock):
    near, far = await channels()
    raw = RawPeer(far)

    async with open_link(near, no_handler) as link:
        await link.tell(wire.Left(moved=1, lost=2))
        assert await raw.hear() == [Notice(wire.Left(moved=1, lost=2))]
