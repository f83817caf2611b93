"""Which of Dask's settings a group may have, and that both scripts have them."""

from __future__ import annotations

import pytest

from aemesh.engines.dask import ENGINE
from aemesh.errors import UsageError
from aemesh.plugin import Tunable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distributed.scheduler.worker-saturation", "inf"),
        ("distributed.scheduler.work_stealing", "False"),
        ("distributed.worker.memory.target", "0.7"),
        ("distributed.comm.timeouts.connect", "30s"),
        ("distributed.comm.compression", "[1, 2]"),
        ("optimization.fuse.active", "true"),
    ],
)
def test_what_tunes_the_engine_is_taken(name: str, value: str) -> None:
    """Shows: E2."""
    assert isinstance(ENGINE, Tunable)
    ENGINE.check_settings({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distributed.comm.require-encryption", "False"),
        ("distributed.comm.require_encryption", "False"),
        ("distributed.comm.tls.ciphers", "NULL"),
        ("distributed.comm.tls.min-version", "1.2"),
        ("distributed.comm.default_scheme", "tcp"),
        ("distributed.scheduler.preload", "['evil']"),
        ("distributed.scheduler.preload-argv", "x"),
        ("distributed.worker.preload", "evil"),
        ("distributed.worker.http.routes", "[]"),
        ("distributed.scheduler.http.routes", "[]"),
        ("distributed.scheduler.dashboard.bokeh-application", "x"),
        ("distributed.scheduler.active-memory-manager.policies", "[]"),
        ("distributed.nanny.preload", "evil"),
        ("distributed", "{}"),
        ("temporary-directory", "/tmp"),
        ("scheduler-address", "tcp://10.0.0.1:1"),
        ("distributed.scheduler.locks", "{'preload': 'evil'}"),
        ("distributed.scheduler", "{'preload': 'evil'}"),
    ],
)
def test_what_loads_code_listens_or_weakens_tls_is_refused(
    name: str, value: str
) -> None:
    """Shows: E2."""
    assert isinstance(ENGINE, Tunable)
    with pytest.raises(UsageError):
        ENGINE.check_settings({name: value})
