"""A client of a group of Dask.

Loaded when it is asked for: importing distributed takes half a second.
"""
# What goes to Dask is Dask's.
# mypy: disable-error-code="no-untyped-call"
# ruff: noqa: ANN401

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.config
import distributed

if TYPE_CHECKING:
    from collections.abc import Mapping


def find_scheduler(environ: Mapping[str, str]) -> tuple[str, Any]:
    """Return the scheduler's address, and a `distributed.Security` for it.

    `environ` are the variables of a group; Dask's other settings stay as they are.
    """
    ours = dask.config.collect_env(env=environ)
    # Merged, for `set` puts a nested value in place of all its neighbours.
    with dask.config.set(dask.config.merge(dask.config.config, ours)):
        return dask.config.get("scheduler-address"), distributed.Security()


def open_client(environ: Mapping[str, str], **options: Any) -> distributed.Client:
    """Return a client of the group of these variables."""
    address, security = find_scheduler(environ)
    return distributed.Client(address, security=security, **options)
