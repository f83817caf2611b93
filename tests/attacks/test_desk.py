"""Attacks on the desk where trust is decided: by time, by order, by broken files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust import trustfiles
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    Role,
    Terms,
    Verdict,
)
from aemesh.net.entrance import Door
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol.hello import Purpose
from aemesh.testing.nodes import connection_pair

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.key import PublicKey

NOW = 1_800_000_000.0
TODAY = "20270115"


class Desk(TrustDesk):
    """A desk on disk, and what its user was told."""

    def __init__(self, folder: Path, role: Role, **policy: object) -> None:
        folder.chmod(0o700)
        self.alarms: list[str] = []
        super().__init__(
            TrustPolicy(role=role, **policy),
            folder=folder,
            wall=lambda: NOW,
            audit=AuditLog(folder),
            alarm=self.alarms.append,
        )


def fresh(name: str) -> PublicKey:
    return Identity.ephemeral(name).public


def master(name: str = "desk", **fields: object) -> Peer:
    return Peer(
        role=Role.MASTER,
        name=NodeName(name),
        key=fields.pop("key", None) or fresh(name),
        mode=fields.pop("mode", Mode.LEAP),
        address="10.0.0.9:40000",
        **fields,
    )


@pytest.mark.parametrize("mode", [Mode.LEAP, Mode.OPEN])
def test_nobody_is_let_in_while_the_trust_files_cannot_be_read(
    tmp_path: Path, mode: Mode
):
    """A file that we could not read looked like none: the worker had no owner.

    Threat: 34
    """
    owner = f"{fresh('boss').openssh} boss\n"
    (tmp_path / "authorized_masters").write_text(owner)
    (tmp_path / "authorized_masters").chmod(0o666)
    desk = Desk(tmp_path, Role.WORKER, mode=mode, accept_first=True)
    verdict = desk.judge(master("stranger", mode=mode))
    assert verdict.decision is Decision.NO
    assert "read" in verdict.detail
    assert str(tmp_path) not in verdict.detail
    (tmp_path / "authorized_masters").chmod(0o600)
    if mode is Mode.LEAP:
        assert desk.judge(master("stranger")).reason is Reason.OWNED


def test_a_key_of_an_administrators_line_cannot_put_another_in_its_place(
    tmp_path: Path,
):
    """Its next key would be under the terms of the line that was learnt, so none.

    Threat: 30
    """
    desk = Desk(tmp_path, Role.WORKER)
    peer = master()
    line = KnownPeer(peer.name, peer.key, via="tofu", added="20260101")
    trustfiles.add(tmp_path, Role.MASTER, line)
    terms = f'groups="render",expiry-time="20280101Z" {peer.key.openssh} desk\n'
    (tmp_path / "authorized_masters").write_text(terms)
    (tmp_path / "authorized_masters").chmod(0o600)
    assert desk.book.authorized
    with pytest.raises(RefusedError, match="administrator"):
        desk.take_next_key(peer, fresh("next"))


def test_a_peer_is_not_told_where_our_trust_files_are(tmp_path: Path):
    """What a request is refused for is said to its peer.  Threat: 15"""
    desk = Desk(tmp_path, Role.WORKER)
    peer = master()
    line = KnownPeer(peer.name, peer.key, via="tofu", added="20260101")
    trustfiles.add(tmp_path, Role.MASTER, line)
    desk.take_next_key(peer, fresh("next"))
    with pytest.raises(RefusedError) as caught:
        desk.take_next_key(peer, fresh("another"))
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "known_masters").chmod(0o666)
    with pytest.raises(RefusedError) as caught:
        desk.take_next_key(peer, fresh("another"))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(Mode.GSS, Reason.PRINCIPAL), (Mode.X509, Reason.CERTIFIED)],
)
@pytest.mark.parametrize("last", ["", TODAY])
def test_a_known_peer_that_was_seen_in_a_stronger_mode_is_remembered_so(
    tmp_path: Path, mode: Mode, reason: Reason, last: str
):
    """It was known by a leap before the site had a CA or a KDC.  Threat: 44"""
    desk = Desk(tmp_path, Role.WORKER, mode=mode)
    peer = master(mode=mode, principal="alice@EXAMPLE.ORG")
    line = KnownPeer(peer.name, peer.key, via="sas", added="20260101", last=last)
    trustfiles.add(tmp_path, Role.MASTER, line)
    assert desk.book.known
    desk.commit(peer, Verdict(Decision.OK, reason))
    weaker = Desk(tmp_path, Role.WORKER)
    verdict = weaker.judge(replace(peer, mode=Mode.LEAP, principal=""))
    assert verdict.reason is Reason.WEAKER


def test_two_meetings_of_one_stranger_do_not_take_turns_at_the_question(
    tmp_path: Path,
):
    """Each was judged five times a second, and withdrew the other's question.

    Threat: 29
    """
    desk = Desk(tmp_path, Role.WORKER)
    first = master(code="tiger-apple-seven-moon")
    second = replace(first, code="other-words-are-these")
    assert desk.judge(first).decision is Decision.PENDING
    assert desk.judge(second).decision is Decision.PENDING
    assert desk.judge(first).decision is Decision.NO
    assert desk.judge(second).decision is Decision.PENDING
    assert desk.waiting[first.key_id].code == second.code


def test_a_known_peer_does_not_give_its_neighbour_new_tries(tmp_path: Path):
    """Only a yes to who was met begins the count anew.  Threat: 29"""
    desk = Desk(tmp_path, Role.WORKER)
    known = master("known")
    line = KnownPeer(known.name, known.key, via="sas", added="20260101")
    trustfiles.add(tmp_path, Role.MASTER, line)
    for _ in range(limits.PAIRINGS):
        assert desk.proofs.begin_pairing(master("stranger")) is None
        desk.commit(known, Verdict(Decision.OK, Reason.KNOWN))
    assert desk.proofs.begin_pairing(master("stranger")) is not None


def test_strangers_cannot_push_the_past_out_of_the_audit_log(tmp_path: Path):
    """Each comes with a key of its own, for which everything is news.  Threat: 89"""
    desk = Desk(tmp_path, Role.WORKER)
    owner = KnownPeer(NodeName("desk"), fresh("desk"), via="sas", added="20260101")
    trustfiles.add(tmp_path, Role.MASTER, owner)
    assert desk.book.known
    for _ in range(limits.STRANGER_EVENTS_PER_MINUTE + 100):
        peer = master("desk")  # the owner's name
        desk.judge(peer)
        desk.heard(peer, Verdict(Decision.NO, Reason.KEY_CHANGED))
        desk.heard(peer, Verdict(Decision.NO, Reason.CLONE))
    lines = (tmp_path / "audit.log").read_text().splitlines()
    assert len(lines) <= limits.STRANGER_EVENTS_PER_MINUTE
    assert len(desk.alarms) <= limits.STRANGER_LOGS_PER_MINUTE
    desk.commit(replace(peer, key=owner.key), Verdict(Decision.OK, Reason.KNOWN))
    assert len((tmp_path / "audit.log").read_text().splitlines()) == len(lines) + 1


def test_a_void_line_is_no_reason_to_take_the_next_master_that_comes(tmp_path: Path):
    """Somebody owned the worker before a word of its line was mistyped.  Threat: 34"""
    (tmp_path / "known_masters").write_text(f"boss {fresh('boss').openssh} gruops=a\n")
    (tmp_path / "known_masters").chmod(0o600)
    desk = Desk(tmp_path, Role.WORKER, accept_first=True)
    assert desk.judge(master("stranger")).reason is Reason.OWNED


async def test_a_stream_writes_nothing_about_its_peer(tmp_path: Path):
    """It proves no principal of its own, and may say any name.  Threat: 80"""
    desk = Desk(tmp_path, Role.WORKER, mode=Mode.GSS)
    (tmp_path / "gss_principals").write_text("alice@EXAMPLE.ORG\n")
    (tmp_path / "gss_principals").chmod(0o600)
    link = master(mode=Mode.GSS, principal="alice@EXAMPLE.ORG")
    entry = Door(desk, chance=lambda: 0.999, linked=lambda _: link).enter(
        connection_pair()[1]
    )
    stream = replace(link, name=NodeName("another"), principal="")
    verdict = entry.judge(stream, purpose=Purpose.STREAM, skew=0.0, expected=None)
    assert verdict.decision is Decision.OK
    entry.commit(stream, verdict)
    assert desk.book.known == ()


def test_who_is_linked_is_judged_again_when_the_files_cannot_be_read(tmp_path: Path):
    """Nothing was known before or after, so nothing seemed to have changed.

    Threat: 43
    """
    desk = Desk(tmp_path, Role.WORKER, mode=Mode.OPEN)
    assert desk.book.known == ()
    changed = desk.memory.changed
    (tmp_path / "known_masters").write_text("@revoked * what is this\n")
    assert desk.judge(master(mode=Mode.OPEN)).decision is Decision.NO
    assert changed.is_set()
    changed = desk.memory.changed
    (tmp_path / "known_masters").unlink()
    assert desk.judge(master(mode=Mode.OPEN)).decision is Decision.OK
    assert changed.is_set()


def test_a_certified_machine_that_was_set_up_anew_is_under_the_same_terms(
    tmp_path: Path,
):
    """Another key under its name took the place of the line, without its terms.

    Threat: 77
    """
    desk = Desk(tmp_path, Role.WORKER, mode=Mode.X509)
    peer, anew = master(mode=Mode.X509), master(mode=Mode.X509)
    terms = Terms(groups=("render",))
    line = KnownPeer(peer.name, peer.key, "x509", "20260101", Mode.X509, terms=terms)
    trustfiles.add(tmp_path, Role.MASTER, line)
    assert desk.book.known
    desk.commit(anew, Verdict(Decision.OK, Reason.CERTIFIED))
    (kept,) = desk.book.known
    assert kept.key == anew.key
    assert kept.terms == terms
