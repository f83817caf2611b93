"""The state directory: private, held by one, cleared of what a killed one left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aemesh.errors import AlreadyRunningError, SettingsError
from aemesh.host.statedir import held_state, state_folder, state_root
from aemesh.model.trust import Role
from aemesh.testing.lab_needs import has_many_users

HOLD = (
    "import sys; from aemesh.host.statedir import held_state;"
    "from aemesh.model.trust import Role\n"
    "with held_state(Role.WORKER, sys.argv[1]) as state:\n"
    "    (state.run / 'group.key').write_text('secret')\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


def test_the_flag_goes_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AEMESH_STATE", str(tmp_path / "variable"))

    assert state_root(tmp_path / "flag") == tmp_path / "flag"
    assert state_root() == tmp_path / "variable"


def test_without_either_it_is_the_users_state_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AEMESH_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")

    assert state_root() == Path("/somewhere/aemesh")


def test_the_folder_of_a_role_is_private(tmp_path: Path):
    folder = state_folder(Role.MASTER, tmp_path / "deep" / "state")

    assert folder == tmp_path / "deep" / "state" / "master"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_refused(mode: int, tmp_path: Path):
    state_folder(Role.WORKER, tmp_path).chmod(mode)

    with pytest.raises(SettingsError) as caught:
        state_folder(Role.WORKER, tmp_path)

    assert caught.value.hint == f"chmod go-w {tmp_path / 'worker'}"


@pytest.mark.skipif(
    os.geteuid() != 0 or not has_many_users(), reason="only root gives files away"
)
def test_a_folder_of_another_user_is_refused(tmp_path: Path):
    os.chown(state_folder(Role.WORKER, tmp_path), 12345, -1)

    with pytest.raises(SettingsError, match="user 12345"):
        state_folder(Role.WORKER, tmp_path)


def test_a_parent_in_which_others_can_rename_it_is_refused(tmp_path: Path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(SettingsError, match="exchange it"):
        state_folder(Role.WORKER, tmp_path / "state")

    (tmp_path / "state").chmod(0o1777)  # as /tmp is
    assert state_folder(Role.WORKER, tmp_path / "state").is_dir()


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="cannot be made"):
        state_folder(Role.WORKER, tmp_path / "file")


def test_the_second_of_one_role_is_refused_with_the_pid_of_the_first(tmp_path: Path):
    with (
        held_state(Role.WORKER, tmp_path),
        pytest.raises(AlreadyRunningError) as caught,
        held_state(Role.WORKER, tmp_path),
    ):
        pass

    assert f"process {os.getpid()}" in str(caught.value)


def test_the_other_role_and_the_next_one_are_welcome(tmp_path: Path):
    with held_state(Role.WORKER, tmp_path), held_state(Role.MASTER, tmp_path):
        pass
    with held_state(Role.WORKER, tmp_path):
        pass


def test_the_run_folder_is_emptied_at_the_end(tmp_path: Path):
    with held_state(Role.WORKER, tmp_path) as state:
        (state.run / "keys").mkdir()
        (state.run / "keys" / "key.pem").write_text("secret")

    assert list(state.run.iterdir()) == []


def test_a_link_in_the_run_folder_is_removed_and_not_followed(tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    with held_state(Role.WORKER, tmp_path) as state:
        (state.run / "link").symlink_to(tmp_path / "precious")
        (state.run / "inner").mkdir()
        (state.run / "inner" / "link").symlink_to(tmp_path / "precious")

    assert list(state.run.iterdir()) == []
    assert (tmp_path / "precious" / "file").read_text() == "keep"


def test_keys_of_a_killed_process_are_gone_after_the_next_start(tmp_path: Path):
    """Threat: 79."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(AlreadyRunningError, match=f"process {holder.pid}"),
        held_state(Role.WORKER, tmp_path),
    ):
        pass
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    holder.stdin.close()
    holder.stdout.close()
    assert (tmp_path / "worker" / "run" / "group.key").exists()

    with held_state(Role.WORKER, tmp_path) as state:
        assert list(state.run.iterdir()) == []
