"""The passphrase of a CA, as it is asked for on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from aemesh.cli import main, ui
from aemesh.errors import UsageError
from aemesh.host.site.authority import SiteAuthority


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person types, in this order."""
    typed: list[str] = []
    monkeypatch.setattr(ui, "ask_secret", lambda _: typed.pop(0))
    return typed


def test_a_new_passphrase_is_typed_twice_and_asked_for_later(
    tmp_path: Path, answers: list[str]
):
    folder = str(tmp_path / "ca")
    answers += ["secret", "secret", "secret"]

    assert main.run(["ca", "init", folder]) == 0
    assert SiteAuthority(tmp_path / "ca").is_locked
    assert main.run(["ca", "crl", "--dir", folder]) == 0
    assert answers == []


def test_a_new_passphrase_that_was_mistyped_makes_no_ca(
    tmp_path: Path, answers: list[str], capfd: pytest.CaptureFixture[str]
):
    answers += ["secret", "secert"]

    assert main.run(["ca", "init", str(tmp_path / "ca")]) == UsageError.exit_code

    assert "the two passphrases differ" in capfd.readouterr().err
    assert not (tmp_path / "ca").exists()


def test_no_passphrase_is_a_choice_with_a_warning(
    tmp_path: Path, answers: list[str], capfd: pytest.CaptureFixture[str]
):
    answers += [""]

    assert main.run(["ca", "init", str(tmp_path / "ca")]) == 0

    assert "have no passphrase" in capfd.readouterr().err
    assert not SiteAuthority(tmp_path / "ca").is_locked
