"""What a group of Dask offers in Python: a client, and an executor on one.

Loaded when the first of them is asked for: importing distributed takes half a second.
"""
# What goes to Dask is Dask's.
# mypy: disable-error-code="no-untyped-call"
# ruff: noqa: ANN401

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.config
import distributed
from distributed.cfexecutor import ClientExecutor

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


class GroupExecutor(ClientExecutor):
    """A `concurrent.futures.Executor` on the group, with a client of its own."""

    def __init__(self, client: distributed.Client, **options: Any) -> None:
        # Each call is one of its own, as with any executor: Dask alone would take two
        # with the same arguments for one.
        super().__init__(client, **{"pure": False, **options})

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; having waited for what was taken, close the client.

        Without `wait` the client goes on until its group is closed.
        """
        if cancel_futures:
            self._client.cancel(list(self._futures))
        super().shutdown(wait=wait)
        if wait:
            self._client.close()
