"""The table of workers says how their engines are reached."""

from __future__ import annotations

import pytest

from aemesh.cli.status import show_workers
from aemesh.model.view import PortsView, WorkerView

VIEW = {
    "name": "office-1",
    "key": "SHA256:k",
    "words": "four words for reading",
    "state": "leased",
    "trust": "trusted",
    "address": "10.77.0.2:7472",
    "group": "A",
    "generation": 1,
    "cores": 4,
    "memory": 8 << 30,
}


def test_a_worker_that_is_reached_through_its_master_says_since_when_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows: E7; of one that is reached directly there is nothing to say."""
    monkeypatch.setenv("COLUMNS", "300")
    why = "cannot reach 10.77.0.2:45595: Connection refused"
    ports = PortsView(way="forwarded", why=why, since=1_800_000_000.0, bytes=7)
    direct = PortsView(way="direct", why="a connection came through", since=1.0)

    show_workers(
        [
            WorkerView(**VIEW, ports=ports),
            WorkerView(**{**VIEW, "name": "office-2"}, ports=direct),
        ]
    )

    _, first, second = capsys.readouterr().out.strip().splitlines()
    assert "reached through the master since" in first
    assert first.rstrip().endswith(why)
    assert "through" not in second
