"""The master's state file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.host.keys.keystore import Identity
from aemesh.host.store import Store, open_store
from aemesh.model.names import GroupName

A = GroupName("A")
KEY = Identity.ephemeral("office-1").key_id


def say(store: Store, text: str) -> int:
    return store.add_event(
        at=1.0, kind="test", text=text, worker=None, group=None
    ).number


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    with open_store(tmp_path / "state.sqlite") as store:
        store.put_group(A, "dask")
        store.put_worker(KEY, 3, A)
        say(store, "hello")

    with open_store(tmp_path / "state.sqlite") as store:
        assert store.groups() == {A: "dask"}
        assert store.worker(KEY) == (3, A)
        assert [e.text for e in store.events(0, most=10)] == ["hello"]


def test_an_unknown_worker_was_in_no_generation() -> None:
    with open_store(None) as store:
        assert store.worker(KEY) == (0, None)


def test_a_dropped_group_is_gone() -> None:
    with open_store(None) as store:
        store.put_group(A, "dask")
        store.drop_group(A)

        assert store.groups() == {}


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    with open_store(tmp_path / "state.sqlite") as store:
        say(store, "hello")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert modes == {0o600}


def test_old_history_goes_and_numbers_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_KEPT", 50)
    with open_store(None) as store:
        last = max(say(store, str(number)) for number in range(400))
        kept = store.events(0, most=1000)

    assert last == 400
    assert len(kept) == 50
    assert kept[-1].number == 400


def test_events_are_read_on_from_a_number() -> None:
    with open_store(None) as store:
        for text in "abc":
            say(store, text)

        assert [e.text for e in store.events(1, most=1)] == ["b"]


@pytest.mark.parametrize("content", [b"not a database" * 100, b"\0" * 4096 + b"x"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(content)

    with (
        pytest.raises(SettingsError, match=r"state\.sqlite") as caught,
        open_store(path),
    ):
        pass

    assert caught.value.hint is not None


def test_a_file_of_a_newer_aemesh_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with open_store(path) as store:
        store._db.execute("pragma user_version = 99")

    with pytest.raises(SettingsError, match="version 99"), open_store(path):
        pass
