"""The proofs of a handshake over real TLS: codes, join tokens, Kerberos' frames."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import AemeshError, BadMessage, RefusedError
from aemesh.model.jointoken import JoinToken
from aemesh.model.trust import Decision, Mode, Proof, Reason, Role, Verdict
from aemesh.net.shake import Channel, Shaker
from aemesh.net.talk import Talk
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose
from aemesh.testing.nodes import (
    OK,
    FixedProofs,
    Node,
    both,
    connection_pair,
)

PAIR = frozenset({Proof.PAIR})
JOIN = frozenset({Proof.JOIN})
SECRET = bytes(range(16))


@pytest.fixture
def master() -> Node:
    return Node.fresh(Role.MASTER)


@pytest.fixture
def worker() -> Node:
    return Node.fresh(Role.WORKER)


def code_of(node: Node) -> str:
    return node.doorman.judged[-1].code


def token_for(master: Node, *, secret: bytes = SECRET) -> JoinToken:
    return JoinToken.of(master.identity.key_id, "abcdefgh", secret)


# --- codes --------------------------------------------------------------------------


@pytest.mark.parametrize("asking", ["master", "worker", "both"])
@pytest.mark.parametrize("dialling", [Role.MASTER, Role.WORKER])
async def test_both_sides_show_the_same_four_words(master, worker, asking, dialling):
    """Shows: T5."""
    if asking != "worker":
        master.doorman.proofs.asked = PAIR
    if asking != "master":
        worker.doorman.proofs.asked = PAIR
    ends = (master, worker) if dialling is Role.MASTER else (worker, master)

    near, far = await both(*ends)

    assert isinstance(near, Channel)
    assert isinstance(far, Channel)
    assert code_of(master) == code_of(worker)
    assert len(code_of(master).split("-")) == 4
    assert near.peer.code == "", "it is for this meeting only"


async def test_each_meeting_has_other_words(master, worker):
    master.doorman.proofs.asked = PAIR
    codes = set()
    for _ in range(3):
        await both(master, worker)
        codes.add(code_of(worker))

    assert len(codes) == 3


async def test_who_asks_for_nothing_shows_nothing(master, worker):
    await both(master, worker)

    assert code_of(master) == code_of(worker) == ""


async def test_a_stream_makes_no_code(master, worker):
    master.doorman.proofs.asked = worker.doorman.proofs.asked = PAIR

    await both(master, worker, purpose=Purpose.STREAM)

    assert code_of(worker) == ""


async def test_who_stands_between_makes_the_words_differ(master, worker):
    """Threat: 2, 28: it holds a channel to each, and the two codes are not equal."""
    master.doorman.proofs.asked = worker.doorman.proofs.asked = PAIR
    as_worker, as_master = Node.fresh(Role.WORKER), Node.fresh(Role.MASTER)

    await both(master, as_worker)
    await both(as_master, worker)

    assert code_of(master) != code_of(worker)


@pytest.mark.parametrize("cheat", ["nonce", "no-commit", "verdict"])
async def test_a_master_that_does_not_keep_to_its_commitment_is_refused(
    master, worker, monkeypatch, cheat
):
    """Threat: 28: it would choose its nonce after it has seen the worker's."""
    master.doorman.proofs.asked = worker.doorman.proofs.asked = PAIR
    honest = Talk.prove

    async def prove(self: Talk, body: wire.Body) -> None:
        if self.machine.ours.role is Role.MASTER:
            if cheat == "nonce" and body.nonce is not None:
                body = wire.Pair(nonce="ab" * 16)
            if cheat == "no-commit" and body.commit is not None:
                body = wire.Pair(nonce="ab" * 16)
            if cheat == "verdict":
                await self.say(self.machine.refuse(OK))
                return
        await honest(self, body)

    monkeypatch.setattr(Talk, "prove", prove)

    near, far = await both(master, worker)

    assert isinstance(near, AemeshError)
    assert isinstance(far, BadMessage)
    assert worker.doorman.judged == [], "it was refused before anybody judged"
    assert worker.doorman.committed == []


async def test_too_many_meetings_are_refused_and_the_peer_is_told(master, worker):
    """Threat: 29."""
    worker.doorman.proofs.asked = PAIR
    worker.doorman.proofs.tries = 1

    first = await both(master, worker)
    near, far = await both(master, worker)

    assert isinstance(first[0], Channel)
    assert isinstance(near, RefusedError)
    assert "declined" in str(near)
    assert isinstance(far, RefusedError)
    assert master.doorman.heard_verdicts[-1].decision is Decision.NO


async def test_more_steps_than_any_proof_has_are_a_breach(master, worker, monkeypatch):
    worker.doorman.proofs.asked = master.doorman.proofs.asked = PAIR
    honest = Talk.prove

    async def prove(self: Talk, body: wire.Body) -> None:
        for _ in range(40):
            await honest(self, body)

    monkeypatch.setattr(Talk, "prove", prove)

    near, far = await both(master, worker)

    assert isinstance(near, AemeshError)
    assert isinstance(far, AemeshError)


# --- join tokens --------------------------------------------------------------------


async def test_a_token_is_proved_in_both_directions(master, worker):
    """Shows: T6."""
    master.doorman.proofs = FixedProofs(secrets={"abcdefgh": SECRET})
    worker.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(master))

    near, _ = await both(master, worker)

    assert isinstance(near, Channel)
    for node in (master, worker):
        proof = node.doorman.judged[-1].token
        assert proof is not None
        assert (proof.id, proof.refused) == ("abcdefgh", None)
    assert near.peer.token is None, "it is for this once"


@pytest.mark.parametrize("secrets", [{}, {"abcdefgh": bytes(16)}])
async def test_a_guessed_id_and_a_wrong_secret_are_told_alike(master, worker, secrets):
    """Threat: 52."""
    master.doorman.proofs = FixedProofs(secrets=secrets)
    worker.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(master))

    await both(master, worker)

    for node in (master, worker):
        proof = node.doorman.judged[-1].token
        assert proof is not None
        assert proof.refused is Reason.TOKEN_UNKNOWN


async def test_what_the_record_says_of_a_token_is_the_masters_word(master, worker):
    """Threat: 52."""
    master.doorman.proofs = FixedProofs(
        secrets={"abcdefgh": SECRET}, refused=Reason.TOKEN_SPENT
    )
    worker.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(master))

    await both(master, worker)

    assert master.doorman.judged[-1].token.refused is Reason.TOKEN_SPENT


async def test_a_master_that_only_says_that_it_knows_the_token_is_not_believed(
    master, worker, monkeypatch
):
    """Threat: 53."""
    master.doorman.proofs = FixedProofs(secrets={"abcdefgh": SECRET})
    worker.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(master))
    honest = Talk.prove

    async def prove(self: Talk, body: wire.Body) -> None:
        if self.machine.ours.role is Role.MASTER:
            body = wire.Join(token=body.token, mac="00" * 32)
        await honest(self, body)

    monkeypatch.setattr(Talk, "prove", prove)

    await both(master, worker)

    assert worker.doorman.judged[-1].token.refused is Reason.TOKEN_KEY


async def test_a_proof_that_a_relay_passes_on_is_worth_nothing(
    master, worker, monkeypatch
):
    """Threat: 53: it is bound to both keys of the connection that it was made for."""
    relay = Node.fresh(Role.MASTER)
    taken: list[wire.Join] = []
    worker.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(relay))
    honest = Talk.prove

    async def prove(self: Talk, body: wire.Body) -> None:
        if isinstance(body, wire.Join) and self.machine.ours.role is Role.WORKER:
            if taken:
                body = taken[0]
            else:
                taken.append(body)
        await honest(self, body)

    monkeypatch.setattr(Talk, "prove", prove)
    await both(relay, worker)
    thief = Node.fresh(Role.WORKER, name="thief")
    thief.doorman.proofs = FixedProofs(asked=JOIN, token=token_for(master))
    master.doorman.proofs = FixedProofs(secrets={"abcdefgh": SECRET})

    await both(master, thief)

    assert taken, "the relay saw a proof"
    assert master.doorman.judged[-1].token.refused is Reason.TOKEN_UNKNOWN


async def test_who_is_asked_for_a_token_and_has_none_says_so(master, worker):
    master.doorman.proofs.asked = JOIN

    _, far = await both(master, worker)

    assert isinstance(far, BadMessage)


# --- Kerberos -----------------------------------------------------------------------


@dataclass
class FakeGss:
    """Two steps, as Kerberos has: a ticket, an answer."""

    says: list[bytes | None]
    principal: str
    complete: bool = False
    heard: list[bytes | None] = field(default_factory=list)
    error: RefusedError | None = None

    async def step(self, token: bytes | None) -> bytes | None:
        self.heard.append(token)
        if self.error is not None:
            raise self.error
        said = self.says.pop(0)
        self.complete = not self.says
        return said


def kerberos(node: Node, party: FakeGss, bindings: list[bytes]) -> Node:
    def make(peer, binding):
        bindings.append(binding)
        return party

    node.mode = Mode.GSS
    node.gss = make
    return node


@pytest.mark.parametrize("dialling", [Role.MASTER, Role.WORKER])
async def test_kerberos_tokens_go_both_ways_and_name_both_sides(
    master, worker, dialling
):
    bindings: list[bytes] = []
    ticket = FakeGss([b"AP-REQ", None], "aemesh/lab-1@LAB")
    service = FakeGss([b"AP-REP"], "alice@LAB")
    kerberos(master, ticket, bindings)
    kerberos(worker, service, bindings)

    ends = (master, worker) if dialling is Role.MASTER else (worker, master)
    near, _ = await both(*ends)

    assert isinstance(near, Channel)
    assert ticket.heard == [None, b"AP-REP"]
    assert service.heard == [b"AP-REQ"]
    assert worker.doorman.judged[-1].principal == "alice@LAB"
    assert master.doorman.judged[-1].principal == "aemesh/lab-1@LAB"
    assert bindings[0] == bindings[1], "both are bound to this connection"


async def test_why_kerberos_ended_is_told_to_the_other_side(master, worker):
    error = RefusedError("the ticket is for another service")
    kerberos(master, FakeGss([b"AP-REQ", None], ""), [])
    kerberos(worker, FakeGss([b"AP-REP"], "", error=error), [])

    near, far = await both(master, worker)

    assert far is error
    assert isinstance(near, RefusedError)
    assert "the ticket is for another service" in str(near)
    assert worker.doorman.judged == []


# --- what does not come out of order -------------------------------------------------


async def test_no_proof_is_taken_after_the_verdicts(master, worker, monkeypatch):
    honest = Talk.say
    worker.doorman.verdict = Verdict(Decision.PENDING, Reason.UNKNOWN)

    async def say(self: Talk, data: bytes) -> None:
        await honest(self, data)
        if self.machine.said is not None and self.machine.ours.role is Role.MASTER:
            await honest(self, self.machine.prove(wire.Pair(nonce="00" * 16)))

    monkeypatch.setattr(Talk, "say", say)

    _, far = await both(master, worker)

    assert isinstance(far, BadMessage)
    assert 'expected verdict, got "pair"' in str(far)


async def test_steps_that_nobody_asked_for_buy_no_time(
    master, worker, monkeypatch, autojump_clock
):
    """Each put off the deadline of a verdict, and held a stranger's place.

    Threat: 11
    """
    worker.doorman.verdict = Verdict(Decision.NO, Reason.DECLINED)
    honest = Shaker._agree

    async def agree(self: Shaker, talk: Talk, *rest: object) -> None:
        if talk.machine.ours.role is Role.WORKER:
            await honest(self, talk, *rest)
        for _ in range(limits.PROOFS):
            await trio.sleep(4)
            await talk.prove(wire.Pair(nonce="00" * 16))

    monkeypatch.setattr(Shaker, "_agree", agree)
    began = trio.current_time()

    dialled, accepted = connection_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_quietly, master.shaker.connect, dialled)
        with pytest.raises(AemeshError):
            await worker.shaker.accept(accepted)
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()

    assert took <= limits.VERDICT_AFTER + 1


async def test_a_token_is_shown_to_nobody_but_its_issuer(master, worker, monkeypatch):
    """Any master that asked had its id, and a hash of its secret.  Threat: 52."""
    heard: list[wire.Body] = []
    issuer = Node.fresh(Role.MASTER)
    worker.doorman.proofs = FixedProofs(token=token_for(issuer))
    master.doorman.proofs = FixedProofs(asked=JOIN)
    honest = Talk.prove

    async def prove(self: Talk, body: wire.Body) -> None:
        heard.append(body)
        await honest(self, body)

    monkeypatch.setattr(Talk, "prove", prove)

    _, far = await both(master, worker)

    assert isinstance(far, BadMessage)
    assert heard == []


async def _quietly(connect, connection) -> None:
    with contextlib.suppress(AemeshError, trio.BrokenResourceError):
        await connect(connection, expected=None)
