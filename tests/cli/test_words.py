"""Words that cannot be: whose fault it is, and what the exit code says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aemesh.cli import main
from aemesh.cli.node import node_name
from aemesh.cli.settings import WorkerOptions
from aemesh.cli.worker_agent import _policy
from aemesh.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = "expected 1 to 64 of A-Z"


@pytest.mark.parametrize("name", ["a b", "", "\xe9", "-x"])
def test_a_name_that_was_typed_is_blamed_on_who_typed_it(name: str):
    with pytest.raises(UsageError, match=NAMES):
        node_name(name)


def test_a_machine_whose_name_cannot_be_ours_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("socket.gethostname", lambda: "b\xfcro")

    with pytest.raises(SettingsError, match="this machine's name") as caught:
        node_name(None)

    assert caught.value.hint == "give one: `--name`"


def test_a_fingerprint_that_was_typed_is_blamed_on_who_typed_it():
    with pytest.raises(UsageError, match="expected a fingerprint"):
        WorkerOptions(trusted=("foo",)).trusted_keys()


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_cannot_be_is_refused_before_anything_starts(
    port: str, capfd: pytest.CaptureFixture[str]
):
    assert main.run(["worker", f"--port={port}"]) == UsageError.exit_code
    assert "is not in the range 0<=x<=65535" in capfd.readouterr().err


def test_a_state_folder_that_cannot_be_looked_into_is_no_bug_of_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    far = tmp_path / ("x" * 256)  # longer than any name may be, also for root

    code = main.run(["trust", "list", "--state", str(far)])

    assert code == SettingsError.exit_code
    assert "cannot be used: File name too long" in capfd.readouterr().err


def test_a_network_without_a_window_is_not_passed_over():
    with pytest.raises(UsageError, match=r"there is no --enrol"):
        _policy(WorkerOptions(enrol_from=("10.0.0.0/8",)), by_token=False)


def test_a_keytab_without_kerberos_is_not_passed_over():
    with pytest.raises(UsageError, match="--keytab is for Kerberos"):
        _policy(WorkerOptions(keytab="host.keytab"), by_token=False)


def test_a_choice_that_is_missing_is_told_on_one_line(
    capfd: pytest.CaptureFixture[str],
):
    assert main.run(["key", "rotate"]) == UsageError.exit_code
    assert "'--role'. Choose from: worker, master\n" in capfd.readouterr().err
