"""The audit log: appended, bounded, escaped."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.host.auditlog import AuditLog
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import Decision, Mode, Peer, Reason, Role, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
