"""`aemesh trust` where a person answers, and between two machines."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aemesh.cli import ui
from aemesh.cli.main import run
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.statedir import state_folder
from aemesh.host.trust.pending import write_request
from aemesh.host.trust.trustfiles import add, read_book, revoke
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Reason, Role, Terms, TrustRequest

KEY, KEY2, KEY3 = (PublicKey(bytes([n]) * 32) for n in (1, 2, 3))
PEER = KnownPeer(NodeName("lab-1"), KEY, via="tofu", added="20261120")


@pytest.fixture
def master(tmp_path: Path) -> Path:
    """A master's folder that knows one worker."""
    folder = state_folder(Role.MASTER, tmp_path)
    add(folder, Role.WORKER, PEER)
    return folder


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch):
    """Sit a person at the terminal who gives these answers; return the questions."""

    def sit(*given: bool) -> list[str]:
        questions: list[str] = []
        left = list(given)

        async def ask(question: str) -> bool:
            questions.append(question)
            return left.pop(0)

        monkeypatch.setattr(ui, "can_ask", lambda: True)
        monkeypatch.setattr(ui, "ask", ask)
        return questions

    return sit


def trust(tmp_path: Path, *words: str) -> int:
    return run(["trust", *words, "--state", str(tmp_path)])


def changes(folder: Path) -> list[tuple[str, str]]:
    path = folder / "audit.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(e["change"], e["name"]) for e in map(json.loads, lines)]


@pytest.mark.parametrize("told", [[], [KEY.key_id.words]])
def test_what_a_person_says_is_the_same_is_verified(told, tmp_path, master, answers):
    questions = answers(True)

    assert trust(tmp_path, "verify", "lab-1", *told) == 0

    assert len(questions) == 1
    assert read_book(master, Role.WORKER).known[0].via == "verified"
    assert changes(master) == [("verify", "lab-1")]


def test_what_a_person_does_not_confirm_stays_unverified(
    tmp_path, master, answers, capsys
):
    answers(False)

    assert trust(tmp_path, "verify", "lab-1") == 4

    assert f"aemesh trust revoke {KEY.key_id.label[:8]}" in capsys.readouterr().err
    assert read_book(master, Role.WORKER).known[0].via == "tofu"
    assert changes(master) == []


@pytest.mark.parametrize("told", [str(KEY2.key_id), KEY2.key_id.words])
def test_a_mismatch_is_loud_and_nobody_is_asked(
    told, tmp_path, master, answers, capsys
):
    """A man in the middle who was accepted is found when keys are compared."""
    questions = answers(True)

    assert trust(tmp_path, "verify", "lab-1", told) == 4

    said = capsys.readouterr().err
    assert "HAS ANOTHER KEY" in said
    assert f"aemesh trust revoke {KEY.key_id.label[:8]}" in said
    assert questions == []
    assert read_book(master, Role.WORKER).known[0].via == "tofu"


def test_keys_go_from_one_machine_to_the_other(tmp_path, capsys, answers):
    """Shows: T7."""
    one, two = tmp_path / "one", tmp_path / "two"
    own = load_or_make(state_folder(Role.WORKER, one), "lab-9").public
    folder = state_folder(Role.MASTER, one)
    terms = Terms(groups=("A",), expires_at=2e9)
    add(folder, Role.WORKER, replace(PEER, terms=terms))
    assert trust(one, "export", "--own", "lab-1") == 0
    lines = tmp_path / "lines"
    lines.write_text(capsys.readouterr().out)

    questions = answers(False, True)
    assert trust(two, "import", str(lines)) == 4
    assert not (two / "master" / "known_workers").exists()
    assert trust(two, "import", str(lines)) == 0

    assert questions == ["Trust these keys?"] * 2
    assert str(own.key_id) in capsys.readouterr().err
    known = read_book(two / "master", Role.WORKER).known
    assert [(p.name, p.key, p.via) for p in known] == [
        ("lab-9", own, "import"),
        ("lab-1", KEY, "import"),
    ]
    assert known[1].terms == terms
    assert changes(two / "master") == [("import", "lab-9"), ("import", "lab-1")]


def test_a_revoked_key_is_not_handed_on(tmp_path, master, capsys):
    add(master, Role.WORKER, replace(PEER, name=NodeName("lab-2"), key=KEY2))
    revoke(master, Role.WORKER, KEY)

    assert trust(tmp_path, "export") == 0

    assert capsys.readouterr().out == f"# known_workers\nlab-2 {KEY2.openssh}\n"
    assert trust(tmp_path, "export", "lab-1") == 3


def test_an_import_refuses_changed_and_revoked_keys_and_takes_the_rest(
    tmp_path, master, capsys
):
    """Threat: 23: not even --yes exchanges a key."""
    revoke(master, Role.WORKER, KEY3)
    lines = tmp_path / "lines"
    lines.write_text(
        "# known_workers\n"
        f"lab-1 {KEY2.openssh}\n"
        f"lab-2 {KEY3.openssh}\n"
        f"lab-3 {PublicKey(b'x' * 32).openssh}\n"
        f"lab-4 {KEY2.openssh} colour=red\n"
    )

    assert trust(tmp_path, "import", str(lines), "--yes") == 4

    said = capsys.readouterr().err
    assert f"{lines}:2: lab-1 has another key" in said
    assert f"{lines}:3: key {KEY3.key_id} of lab-2 is revoked" in said
    assert f"{lines}:5 trusts nobody" in said
    names = [p.name for p in read_book(master, Role.WORKER).known]
    assert names == ["lab-1", "lab-3"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        (f"# known_workers\nlab-1 {KEY.openssh}\n", 0),
        (f"# known_workers\nlab-4 {KEY2.openssh} colour=red\n", 3),
        ("# known_workers\n@revoked * ssh-ed25519 AAAA\n", 3),
        (f"lab-4 {KEY2.openssh}\n", 2),
        (f"# known_workers\nlab-4 {KEY2.openssh}\n", 2),  # no terminal, no --yes
    ],
)
def test_the_exit_code_of_an_import_says_what_it_came_to(text, code, tmp_path, master):
    lines = tmp_path / "lines"
    lines.write_text(text)
    before = (master / "known_workers").read_text()

    assert trust(tmp_path, "import", str(lines)) == code

    assert (master / "known_workers").read_text() == before


def test_lines_come_from_the_standard_input_too(tmp_path, master, monkeypatch):
    lines = tmp_path / "lines"
    lines.write_text(f"lab-2 {KEY2.openssh}\n")

    with lines.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert trust(tmp_path, "import", "--role", "worker", "--yes") == 0

    assert len(read_book(master, Role.WORKER).known) == 2


def test_every_change_by_a_command_is_in_the_audit_log(tmp_path, master, capsys):
    request = TrustRequest(
        role=Role.WORKER,
        name=NodeName("lab-2"),
        key=KEY2,
        address="10.77.0.2:41001",
        reason=Reason.UNKNOWN,
        asked_at=1_800_000_000.0,
    )
    write_request(master, request)

    assert trust(tmp_path, "accept", "lab-2", "--for", "30d", "--users", "alice") == 0
    assert trust(tmp_path, "verify", "lab-2", str(KEY2.key_id)) == 0
    assert trust(tmp_path, "revoke", "lab-2", "--comment", "stolen") == 0
    assert trust(tmp_path, "forget", "lab-2") == 0
    capsys.readouterr()

    assert trust(tmp_path, "audit", "--json", "--last", "3") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["change"], e["name"]) for e in told] == [
        ("verify", "lab-2"),
        ("revoke", "lab-2"),
        ("forget", "lab-2"),
    ]
    assert {e["key"] for e in told} == {str(KEY2.key_id)}
    assert changes(master)[0] == ("accept", "lab-2")


def test_terms_that_would_be_lost_are_not_passed_over(tmp_path, master, capsys):
    """Who is known already is not silently left without the terms that were given."""
    request = TrustRequest(
        Role.WORKER, PEER.name, KEY, "10.0.0.1:7472", Reason.OWNED, 1_800_000_000.0
    )
    write_request(master, request)

    assert trust(tmp_path, "accept", "lab-1", "--groups", "A") == 4

    assert "is known already, not with groups=A" in capsys.readouterr().err
    assert trust(tmp_path, "accept", "lab-1") == 0
