"""What can go wrong travels, and says what to do."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from aemesh.errors import (
    AemeshError,
    NoMasterError,
    OtherWorkError,
    SettingsError,
    UnknownNameError,
    UnknownRunError,
    same_error,
)

ERRORS = [
    SettingsError("what", why="why", hint="do so"),
    NoMasterError("/state"),
    UnknownNameError("group", "A", ["B"]),
    OtherWorkError("k", "f", "f"),
    UnknownRunError("A", "k"),
    same_error("run/other-work", "told elsewhere", hint="do so"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_comes_out_of_a_pickle_as_it_was(error: AemeshError) -> None:
    error.add_note("and more")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.fields() == error.fields()
        assert again.__notes__ == error.__notes__


def test_a_traceback_says_what_to_do() -> None:
    lines = traceback.format_exception_only(OtherWorkError("k", "f", "f"))

    assert lines[-1].startswith("hint: take another key, or begin anew")
    assert not hasattr(SettingsError("no hint"), "__notes__")
