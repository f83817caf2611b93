"""Requests that wait for a person: few, small, and read with suspicion."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.host.trust.pending import (
    _parse_untrusted,
    list_requests,
    read_request,
    remove_request,
    write_request,
)
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import Reason, Role, TrustRequest

if TYPE_CHECKING:
    from pathlib import Path


def request(number: int = 1) -> TrustRequest:
    return TrustRequest(
        role=Role.MASTER,
        name=NodeName(f"desk-{number}"),
        key=PublicKey(number.to_bytes(32, "big")),
        address="[fe80::1%eth0]:41234",
        reason=Reason.UNKNOWN,
        asked_at=1_800_000_000.5 + number,
    )


def test_a_request_is_found_by_its_id(tmp_path: Path):
    write_request(tmp_path, request())

    assert read_request(tmp_path, request().id) == request()
    assert list_requests(tmp_path) == (request(),)
    path = tmp_path / "pending" / f"{request().id}.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_asking_again_replaces_the_first_request(tmp_path: Path):
    write_request(tmp_path, request())
    again = replace(request(), asked_at=1_900_000_000.0)
    write_request(tmp_path, again)

    assert list_requests(tmp_path) == (again,)


def test_the_code_and_the_tries_of_a_meeting_are_kept(tmp_path: Path):
    met = replace(request(), code="tiger-apple-seven-moon", tries=3)
    write_request(tmp_path, met)

    assert read_request(tmp_path, met.id) == met


def test_a_request_of_an_older_aemesh_is_read(tmp_path: Path):
    write_request(tmp_path, request())
    path = tmp_path / "pending" / f"{request().id}.json"
    before = json.loads(path.read_bytes())
    del before["code"], before["tries"]
    path.write_text(json.dumps(before))

    assert list_requests(tmp_path) == (request(),)


def test_a_removed_request_is_gone(tmp_path: Path):
    write_request(tmp_path, request())

    assert remove_request(tmp_path, request().id) is True
    assert remove_request(tmp_path, request().id) is False
    assert list_requests(tmp_path) == ()


def test_without_requests_the_list_is_empty(tmp_path: Path):
    assert list_requests(tmp_path) == ()


def test_beyond_the_bound_the_oldest_are_dropped(tmp_path: Path):
    for number in range(1, limits.PENDING_REQUESTS + 4):
        write_request(tmp_path, request(number))
        path = tmp_path / "pending" / f"{request(number).id}.json"
        os.utime(path, ns=(number, number))

    write_request(tmp_path, request(1000))

    kept = list_requests(tmp_path)
    assert len(kept) == limits.PENDING_REQUESTS
    assert kept[-1] == request(1000)
    assert request(1) not in kept


@pytest.mark.parametrize("bad", ["../worker/id_ed25519", "", "x" * 8 + "/", "ABCDEFGH"])
def test_an_id_is_never_a_path(bad: str, tmp_path: Path):
    assert read_request(tmp_path, bad) is None
    assert remove_request(tmp_path, bad) is False


@pytest.mark.parametrize(
    "change",
    [
        {"role": "king"},
        {"name": "\x1b[31mred"},
        {"name": "a/b"},
        {"key": "AAAA"},
        {"algorithm": "ssh-rsa"},
        {"address": "\x1b]0;title\x07"},
        {"address": "a" * 81},
        {"reason": "because"},
        {"asked_at": "now"},
        {"asked_at": None},
        {"more": 1},
        {"code": "one-two-three"},
        {"code": "\x1b[31mred-a-b-c"},
        {"code": 7},
        {"tries": 0},
        {"tries": -1},
        {"tries": 10**9},
        {"tries": "2"},
        {"key": PublicKey(bytes(32)).openssh.split()[1]},
    ],
)
def test_a_request_that_is_not_ours_is_passed_over(
    change: dict[str, object], tmp_path: Path
):
    write_request(tmp_path, request())
    path = tmp_path / "pending" / f"{request().id}.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))

    assert list_requests(tmp_path) == ()


@pytest.mark.parametrize("data", [b"", b"[" * 3000, b"{}", b"\xff", b" " * 10_000])
def test_junk_is_passed_over(data: bytes, tmp_path: Path):
    write_request(tmp_path, request())
    (tmp_path / "pending" / f"{request(2).id}.json").write_bytes(data)
    (tmp_path / "pending" / "notes.txt").write_bytes(data)

    assert list_requests(tmp_path) == (request(),)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_request(data: bytes):
    with pytest.raises(BadMessage):
        _parse_untrusted(data)
