"""The audit log: appended, bounded, escaped."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.host.trust.auditlog import AuditLog, Change, local_user
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import Decision, Mode, Peer, Reason, Role, Verdict

if TYPE_CHECKING:
    from pathlib import Path

PEER = Peer(
    role=Role.MASTER,
    name=NodeName("desk"),
    key=PublicKey(bytes(32)),
    mode=Mode.LEAP,
    address="192.0.2.7:41234",
)
NO = Verdict(Decision.NO, Reason.UNKNOWN, "nobody accepted it")


def lines(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (folder / "audit.log").read_text().splitlines()
    ]


def test_a_verdict_becomes_one_line(tmp_path: Path):
    AuditLog(tmp_path).write(PEER, NO, now=1_800_000_000.0)

    assert lines(tmp_path) == [
        {
            "time": "2027-01-15T08:00:00+00:00",
            "key": str(PEER.key_id),
            "role": "master",
            "name": "desk",
            "mode": "leap",
            "verdict": "no",
            "reason": "unknown",
            "detail": "nobody accepted it",
            "address": "192.0.2.7:41234",
        }
    ]
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_the_words_of_strangers_are_cut_and_escaped(tmp_path: Path):
    detail = '\x1b[2J\n{"verdict": "ok"}' + "x" * 5000
    AuditLog(tmp_path).write(PEER, Verdict(Decision.NO, Reason.FULL, detail), now=0.0)

    (line,) = lines(tmp_path)

    assert len(line["detail"]) < 200
    assert line["detail"].isprintable()


def test_a_log_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "audit.log").mkdir()

    with caplog.at_level(logging.WARNING):
        AuditLog(tmp_path).write(PEER, NO, now=0.0)

    assert "cannot be written" in caplog.text


def test_a_full_log_moves_aside_once(tmp_path: Path):
    (tmp_path / "audit.log").write_bytes(b"x" * limits.AUDIT_LOG_BYTES)
    (tmp_path / "audit.log.1").write_bytes(b"older")

    AuditLog(tmp_path).write(PEER, NO, now=0.0)
    AuditLog(tmp_path).write(PEER, NO, now=0.0)

    assert len(lines(tmp_path)) == 2
    assert (tmp_path / "audit.log.1").stat().st_size == limits.AUDIT_LOG_BYTES


ACCEPT = Change("accept", Role.MASTER, "desk", str(PEER.key_id), "groups=A")


def test_what_a_person_changed_becomes_one_line_with_their_name(tmp_path: Path):
    AuditLog(tmp_path).write_change(ACCEPT, by="alice", now=1_800_000_000.0)

    assert lines(tmp_path) == [
        {
            "time": "2027-01-15T08:00:00+00:00",
            "key": str(PEER.key_id),
            "role": "master",
            "name": "desk",
            "change": "accept",
            "by": "alice",
            "detail": "groups=A",
        }
    ]
    assert local_user()


def test_the_last_entries_are_read_across_both_files(tmp_path: Path):
    log = AuditLog(tmp_path)
    assert log.read(last=5) == []
    for number in range(4):
        log.write(PEER, NO, now=float(number))
    log.path.rename(tmp_path / "audit.log.1")
    log.write_change(ACCEPT, by="alice", now=4.0)
    with log.path.open("ab") as file:
        file.write(b"\xff\n[1]\n{}\n" + b"[" * 5000 + b"\n")

    read = log.read(last=3)

    assert [entry["time"][-8:-6] for entry in read] == ["02", "03", "04"]
    assert [entry.get("change") for entry in read] == [None, None, "accept"]
    assert log.read(last=0) == []


def test_a_log_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "audit.log").mkdir()

    with pytest.raises(SettingsError, match="cannot be read"):
        AuditLog(tmp_path).read(last=1)
