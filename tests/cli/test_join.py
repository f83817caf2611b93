"""How a worker gets its join token, and that nobody else gets it on the way."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aemesh.cli.join import read_join
from aemesh.cli.options import JOIN_VARIABLE as VARIABLE
from aemesh.errors import SettingsError, UsageError
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId

if TYPE_CHECKING:
    from pathlib import Path

KEY = KeyId(b"i" * 32)
TOKEN = JoinToken.of(KEY, "a2b3c4d5", b"s" * 16)
OTHER = JoinToken.of(KEY, "zzzzzzzz", b"o" * 16)


@pytest.fixture(autouse=True)
def nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def private(folder: Path, text: str) -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_without_any_there_is_none():
    assert read_join(None) is None


def test_it_may_stand_on_the_command_line():
    assert read_join(str(TOKEN)) == TOKEN
    assert read_join(str(TOKEN).lower()) == TOKEN


def test_it_may_come_from_a_private_file(tmp_path: Path):
    path = private(tmp_path, f"{TOKEN}\nanything below\n")

    assert read_join(f"@{path}") == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_file_that_others_reach_is_refused(tmp_path: Path, mode: int):
    """Threat: 93."""
    path = private(tmp_path, str(TOKEN))
    path.chmod(mode)

    with pytest.raises(SettingsError, match="is open to others") as caught:
        read_join(f"@{path}")

    assert caught.value.hint == f"chmod 600 {path}"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(SettingsError, match="No such file"):
        read_join(f"@{tmp_path}/nothing")
    with pytest.raises(SettingsError, match="Is a directory"):
        read_join(f"@{tmp_path}")
    with pytest.raises(UsageError, match="expected a join token"):
        read_join(f"@{private(tmp_path, '')}")


def test_it_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch):
    given = io.StringIO(f"{TOKEN}\nthe rest is for others\n")
    monkeypatch.setattr(sys, "stdin", given)

    assert read_join("-") == TOKEN
    assert given.read() == "the rest is for others\n"


def test_an_empty_standard_input_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    with pytest.raises(UsageError, match="from standard input, and there is none"):
        read_join("-")


def test_it_may_come_from_the_environment_which_loses_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(VARIABLE, str(TOKEN))

    assert read_join(None) == TOKEN
    assert VARIABLE not in os.environ
    assert read_join(None) is None


@pytest.mark.parametrize("given", [str(OTHER), "rubbish", "@/nowhere"])
def test_the_environment_loses_it_even_if_another_is_given(
    monkeypatch: pytest.MonkeyPatch, given: str
):
    """Threat: 93: no job inherits it."""
    monkeypatch.setenv(VARIABLE, str(TOKEN))

    try:
        assert read_join(given) == OTHER
    except (UsageError, SettingsError):
        assert given != str(OTHER)

    assert VARIABLE not in os.environ


def test_a_process_that_is_started_afterwards_does_not_have_it():
    """Threat: 93."""
    program = (
        "import subprocess; from aemesh.cli.join import read_join;"
        "token = read_join(None); assert token; print(token.id, flush=True);"
        "subprocess.run(['/usr/bin/env'], check=True)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: str(TOKEN)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("a2b3c4d5\n")
    assert "PATH=" in done.stdout
    assert str(TOKEN) not in done.stdout
    assert VARIABLE not in done.stdout


@pytest.mark.parametrize("cut", [20, 40, 72])
def test_what_is_no_token_is_not_repeated(tmp_path: Path, cut: int):
    """Threat: 93: most of a token with an error in it is a secret still."""
    wrong = str(TOKEN)[:cut]

    for given in (wrong, f"@{private(tmp_path, wrong)}"):
        with pytest.raises(UsageError, match="join token") as caught:
            read_join(given)
        assert wrong[4:] not in repr(caught.value.fields()).replace(str(tmp_path), "")
