"""``aemesh trust token``, and that a secret is printed once and by nobody else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from aemesh import limits
from aemesh.cli import main
from aemesh.cli.options import JOIN_VARIABLE as VARIABLE
from aemesh.errors import UsageError
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.statedir import held_state
from aemesh.host.trust import tokens
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Role
from aemesh.policy.tokens import TokenUse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Run `aemesh trust token …` in a fresh state directory."""

    def call(*words: str, code: int = 0) -> tuple[str, str]:
        root = ["--state", str(tmp_path)]
        assert main.run([*root, "trust", "token", *words]) == code
        out, err = capfd.readouterr()
        return out, err

    return call


def test_the_token_is_the_one_line_on_standard_output(run, tmp_path: Path):
    """Shows: T6."""
    out, err = run("--group", "A", "--count", "5", "--for", "10m", "--name", "office-*")

    token = JoinToken.parse_untrusted(out.removesuffix("\n"))
    assert out == f"{token}\n"
    assert err.splitlines() == [
        f"join token {token.id} lets 5 workers named office-* join, group A, for 10m",
        f"on the worker: `aemesh worker --join @FILE`, or ${VARIABLE}",
    ]
    (record,) = tokens.list_tokens(tmp_path / "master")
    assert record.terms.groups == ("A",)
    assert record.names == ("office-*",)
    assert record.count == 5
    assert record.expires_at - record.issued_at == 600.0
    assert record.role is Role.WORKER


def test_it_names_the_masters_key_and_makes_it_if_there_is_none(run, tmp_path: Path):
    """Shows: T6."""
    first, second = (JoinToken.parse_untrusted(run()[0]) for _ in range(2))

    key_id = load_or_make(tmp_path / "master", "x").key_id
    assert first.is_issuer(key_id)
    assert second.is_issuer(key_id)
    assert first.secret != second.secret


def test_it_works_beside_a_running_master(run, tmp_path: Path):
    with held_state(Role.MASTER, tmp_path):
        token = JoinToken.parse_untrusted(run()[0])
        assert token.id in run("list")[0]
        run("revoke", token.id)


def test_without_options_it_is_for_one_worker_of_any_group_for_an_hour(run):
    _, err = run()

    assert "lets one worker join, group any, for 1h\n" in err


def test_as_json_it_is_one_object_with_all_it_allows(run):
    out, _ = run("--json", "--group", "A", "--group", "B*")

    told = json.loads(out)
    assert JoinToken.parse_untrusted(told["token"]).id == told["id"]
    assert told["groups"] == ["A", "B*"]
    assert told["state"] == "open"


def test_the_list_tells_states_and_who_used_them(run, tmp_path: Path):
    made = [JoinToken.parse_untrusted(run()[0]) for _ in range(2)]
    folder = tmp_path / "master"
    issued = tokens.list_tokens(folder)[0].issued_at
    use = TokenUse(KeyId(b"a" * 32), NodeName("office-1"), issued)
    tokens.spend(folder, made[0].id, use, role=Role.WORKER)
    run("revoke", made[1].id.upper())

    told = {row["id"]: row for row in map(json.loads, run("list", "--json")[0].split())}

    assert told[made[0].id]["state"] == "spent"
    assert told[made[0].id]["used_by"] == [
        {"name": "office-1", "key": str(use.key_id), "at": issued}
    ]
    assert told[made[1].id]["state"] == "revoked"


def test_the_list_never_has_a_secret(run, tmp_path: Path):
    """Threat: 93."""
    token = JoinToken.parse_untrusted(run()[0])

    shown = "\n".join(
        [*run("list"), *run("list", "--json"), *run("revoke", token.id), *run("list")]
    )

    assert token.id in shown
    assert str(token)[-32:] not in shown.upper()
    assert token.secret.hex() not in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    with_secret = [path for path in files if token.secret.hex() in path.read_text()]
    assert with_secret == [tmp_path / "master" / "tokens" / f"{token.id}.json"]


def test_a_whole_token_may_be_revoked_and_is_not_repeated(run):
    """Threat: 93."""
    token = JoinToken.parse_untrusted(run()[0])
    last = "B" if str(token).endswith("A") else "A"

    _, wrong = run("revoke", str(token)[:-1] + last, code=UsageError.exit_code)
    _, err = run("revoke", str(token).lower())

    assert "typing error" in wrong
    assert err == f"revoked join token {token.id}\n"
    assert str(token)[-32:-1] not in wrong.upper() + err.upper()


@pytest.mark.parametrize("id_", ["zzzzzzzz", "../../x", "..", ""])
def test_an_id_that_is_not_there_is_told(run, id_: str):
    token = JoinToken.parse_untrusted(run()[0])

    _, err = run("revoke", id_, code=3)

    assert err == f'aemesh: error: unknown join token "{id_}": known: {token.id}\n'


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--for", "soon"], "expected one like 30s"),
        (["--for", "31d"], "expected at most 30d"),
        (["--count", "0"], "is not in the range"),
        (["--count", str(limits.TOKEN_COUNT + 1)], "is not in the range"),
        (["--group", "a,b"], 'pattern of groups "a,b"'),
        (["--group", ""], 'pattern of groups ""'),
        (["--name", "x\ny"], 'pattern of names "x\\\\ny"'),
        (["--name", "x"] * (limits.TOKEN_PATTERNS + 1), "65 patterns of names"),
        (["--count", "2", "list"], "options in front of `list` are for a new token"),
    ],
)
def test_words_that_cannot_be_make_no_token_and_no_key(
    run, tmp_path: Path, words: list[str], told: str
):
    out, err = run(*words, code=UsageError.exit_code)

    assert out == ""
    assert told.replace("\\\\", "\\") in err
    assert os.listdir(tmp_path) == []


def test_a_list_where_there_is_nothing_makes_nothing(run, tmp_path: Path):
    assert run("list") == ("", "no join token was given out\n")
    assert os.listdir(tmp_path) == []
