"""A master waits for its keeper, and says what it means that there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aemesh.cli.keeping import wait_keeper
from aemesh.host.keys.keystore import Identity

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_keeper_that_does_not_come_up_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Shows: L5; a person hears that a crash would now cost the analysis."""
    reading, writing = os.pipe()
    os.close(writing)  # as by a process that has ended
    ours = Identity.ephemeral("laptop")

    assert await wait_keeper(reading, str(tmp_path), ours) is None

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{tmp_path}/keeper/log may say why" in record.message
    assert "A master that crashes now takes its engines' heads" in record.message
