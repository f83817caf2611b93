"""Waiting for a master that was killed and will be back."""

from __future__ import annotations

import logging
import threading

import pytest

from aemesh.client import patience
from aemesh.client.patience import Patience
from aemesh.errors import NoMasterError, OtherWorkError, UnreachableError


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_AGAIN_AFTER", 0.001)


def test_a_master_that_is_away_is_waited_for_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = iter([UnreachableError("the master hung up"), *[NoMasterError("/x")] * 9])

    def ask() -> str:
        for error in errors:
            raise error
        return "answer"

    with caplog.at_level(logging.WARNING):
        assert Patience(threading.Event()).ask(ask) == "answer"

    assert [record.getMessage() for record in caplog.records] == [
        "the master hung up; it is asked again",
        "the master answers again",
    ]


def test_it_ends() -> None:
    def ask() -> None:
        raise NoMasterError("/x")

    with pytest.raises(NoMasterError):
        Patience(threading.Event(), within=0.05).ask(ask)


def test_who_stops_does_not_wait() -> None:
    stop = threading.Event()
    stop.set()

    def ask() -> None:
        raise NoMasterError("/x")

    with pytest.raises(NoMasterError):
        Patience(stop, within=1e9).ask(ask)


def test_another_error_is_raised_at_once() -> None:
    def ask() -> None:
        raise OtherWorkError("k", "f", "g")

    with pytest.raises(OtherWorkError):
        Patience(threading.Event()).ask(ask)
