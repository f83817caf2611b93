"""Engines are found by name, also those that were installed a moment ago."""

from __future__ import annotations

from pathlib import Path

import pytest

from aemesh.errors import UnknownNameError
from aemesh.host.plugins import find_engine


def test_an_engine_that_is_installed_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A master need not be started again for it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnknownNameError, match="command, dask"):
        find_engine("late")

    (tmp_path / "late_engine.py").write_text("ENGINE = 'the late one'\n")
    dist = tmp_path / "late_engine-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Name: late-engine\nVersion: 1\n")
    (dist / "entry_points.txt").write_text(
        "[aemesh.engines]\nlate = late_engine:ENGINE\n"
    )

    assert find_engine("late") == "the late one"
