"""The master's state file."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.host.keys.keystore import Identity
from aemesh.host.store import _STEPS, Store, open_store
from aemesh.model.group import Demand
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


def test_a_demand_is_kept_with_its_group(tmp_path: Path) -> None:
    wanted = Demand(min=2, max=10, weight=3, wait_after=300.0, require="cores>=4")
    with open_store(tmp_path / "state.sqlite") as store:
        store.put_demand(A, wanted)
        assert store.demand(A) == Demand()  # of a group that is not there
        store.put_group(A, "dask")
        assert store.demand(A) == Demand()
        store.put_demand(A, wanted)
        store.put_group(A, "command")

    with open_store(tmp_path / "state.sqlite") as store:
        assert store.demand(A) == wanted
        store.put_demand(A, Demand())
        assert store.demand(A) == Demand()


def test_a_pin_is_kept_beside_the_generation() -> None:
    with open_store(None) as store:
        assert store.pinned(KEY) is None
        store.pin(KEY, A)
        store.put_worker(KEY, 3, A)
        assert (store.pinned(KEY), store.worker(KEY)) == (A, (3, A))
        store.pin(KEY, None)

        assert (store.pinned(KEY), store.worker(KEY)) == (None, (3, A))


def test_a_group_has_the_latest_of_its_own_history() -> None:
    with open_store(None) as store:
        for number in range(6):
            group = "A" if number % 2 else "B"
            store.add_event(
                at=1.0, kind="test", text=str(number), worker=None, group=group
            )

        assert [e.text for e in store.group_events(A, most=2)] == ["3", "5"]


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(_STEPS[0] + "pragma user_version = 1;")
        db.execute("insert into groups values ('A', 'dask')")
        db.execute("insert into workers values (?, 7, 'A')", (str(KEY),))
    db.close()

    with open_store(path) as store:
        assert store.groups() == {A: "dask"}
        assert store.demand(A) == Demand()
        assert store.worker(KEY) == (7, A)
        store.pin(KEY, A)
        (version,) = store._db.execute("pragma user_version").fetchone()

    assert version == len(_STEPS)


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
