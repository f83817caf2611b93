"""A Dask cluster in this process, for what needs no more of one than that."""

from __future__ import annotations

from typing import Any

import pytest

distributed = pytest.importorskip("distributed")


def local_cluster(workers: int, *, protocol: str = "inproc://") -> Any:
    """Return a `distributed.LocalCluster`; over ``tcp://`` what is sent is pickled."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol=protocol,
        dashboard_address="127.0.0.1:0",
    )
