"""A group of a running master, as Dask users know clusters.

distributed's own `Cluster` does what a cluster object shows and says; this says how one
is opened, scaled and closed by a master.  Dask counts worker processes, a master counts
machines: what is asked for is rounded up to whole ones.
"""
# distributed is asyncio's, and what it overrides itself it does not type so.
# mypy: disable-error-code="no-untyped-call, override, attr-defined, union-attr"
# ruff: noqa: TID251, ANN401

from __future__ import annotations

import asyncio
import atexit
import html
import math
import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Unpack, cast

from distributed.core import Status, rpc
from distributed.deploy.adaptive import Adaptive
from distributed.deploy.cluster import Cluster
from distributed.utils import Log

from aemesh.client.borrowing import Borrowing
from aemesh.client.daskclient import find_scheduler
from aemesh.client.group import Group, processes_each
from aemesh.client.mesh import Mesh, group_name
from aemesh.errors import AemeshError, EngineError, UsageError
from aemesh.host.statedir import clusters_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from aemesh.model.group import Demand, DemandChange
    from aemesh.model.view import GroupView

_OPEN: weakref.WeakSet[AemeshCluster] = weakref.WeakSet()


class GroupAdaptive(Adaptive):
    """Follows the scheduler's load; which machine goes is the master's to say.

    distributed's own would close processes itself, and the master would take that for
    an accident and start them again.
    """

    async def scale_down(self, workers: list[str]) -> None:
        """Do with fewer; their work and data move to others first."""
        if workers:
            await self.cluster.scale_down(workers)


class AemeshCluster(Cluster):
    """A Dask cluster on a group of the running master.

    A group that is there is used, and gets its wishes back at the end; one that is
    not is opened, and closed at the end.  If several use one group, also in other
    processes, that is done by the last.  `n_workers` is as for `scale`; `wishes` are
    those of `Mesh.set_group`, but for `min` and `max`.

    Raises `NoMasterError`, `EngineError` for a group with another engine, and
    `UsageError` without a group's name.
    """

    def __init__(
        self,
        group: str | None = None,
        *,
        n_workers: int | None = None,
        state: str | Path | None = None,
        asynchronous: bool = False,
        loop: Any = None,
        **wishes: Unpack[DemandChange],
    ) -> None:
        self._mesh = Mesh(state)
        self._wishes = wishes
        self._group: Group | None = None
        self._asked = n_workers  # processes; None: as many as come
        self._no_dashboard = ""  # why there is none
        self.security: Any = None
        name = group_name(group)
        root = self._mesh.folder.parent
        self._borrowing = Borrowing(clusters_folder(root), name)
        super().__init__(asynchronous=asynchronous, loop=loop, name=name, quiet=True)
        if not self.called_from_running_loop:
            self._loop_runner.start()
            try:
                self.sync(self._start)
            except BaseException:
                self.close()
                raise

    # --- opening and closing ---

    def __await__(self) -> Generator[Any, None, AemeshCluster]:
        async def started() -> AemeshCluster:
            if self.status == Status.created:
                try:
                    await self._start()
                except BaseException:
                    await self._close()  # nobody does it who has no cluster
                    raise
            return self

        return started().__await__()

    async def _start(self) -> None:
        group = await asyncio.to_thread(self._open)
        environ = await asyncio.to_thread(group.environment)
        address, self.security = find_scheduler(environ)
        arguments = self.security.get_connection_args("client")
        self.scheduler_comm = rpc(address, connection_args=arguments)
        await super()._start()
        self._cluster_info["name"] = group.name
        _OPEN.add(self)

    def _open(self) -> Group:
        """Find the group or make it, and let it have what was asked for."""
        with self._borrowing.turn():
            there = self._found()
            if there is None:
                self._mesh.open_group(self.name, "dask", **self._wishes)
            elif there.engine != "dask":
                msg = f"group {self.name} is no Dask cluster"
                raise EngineError(msg, why=f"its engine is {there.engine}")
            self._borrowing.begin(is_new=there is None)
            if there is not None and self._wishes:
                self._borrowing.note(_undoing(self._wishes, there.demand))
                self._mesh.set_group(self.name, **self._wishes)
        if self._asked is not None:
            self._ask(self._asked)
        view = self._mesh.connect(self.name, members=False)
        self._group = Group(self._mesh, view)
        return self._group

    async def _watch_worker_status(self, comm: Any) -> None:
        """Take in who comes and goes, as long as the scheduler tells."""
        await super()._watch_worker_status(comm)
        if self.status == Status.running:
            self.status = Status.failed
            self.scheduler_info["workers"] = {}
            if self._adaptive is not None:
                self._adaptive.stop()

    async def _close(self) -> None:
        if self.status == Status.closed:
            return
        with suppress(OSError):  # its scheduler may have gone before us
            await super()._close()
        self.status = Status.closed
        _OPEN.discard(self)
        await _beside(self._let_go)

    def _let_go(self) -> None:
        if self._group is not None:
            self._group.close()
        # The master may have ended, and the group with it.
        with suppress(AemeshError), self._borrowing.turn():
            before = self._borrowing.end()
            if before is not None and before.is_new:
                self._mesh.close_group(self.name)
            elif before is not None and before.wishes:
                self._mesh.set_group(self.name, **cast("DemandChange", before.wishes))

    def close(self, timeout: float | None = None) -> Awaitable[None] | None:
        """Close it, and the group if it was opened for this."""
        waits: Awaitable[None] | None = super().close(timeout)
        if not self.asynchronous:
            self._loop_runner.stop()
        return waits

    # --- scaling ---

    @property
    def workers(self) -> dict[str, Any]:
        """The worker processes that are registered, by name."""
        return {info["name"]: info for info in self.scheduler_info["workers"].values()}

    @property
    def plan(self) -> set[str]:
        """Names of as many workers as were asked for; some may not be there yet."""
        there = sorted(self.observed)
        if self._asked is None:
            return set(there)
        missing = range(self._asked - len(there))
        return {*there[: self._asked], *(f"asked-{number}" for number in missing)}

    @property
    def requested(self) -> set[str]:
        """The same: a master brings up what it has."""
        return self.plan

    def scale(self, n: int) -> Awaitable[None] | None:
        """Have `n` worker processes, on as many machines as that takes.

        The master has them come and go; `wait_for_workers` waits for them.
        """
        if self.called_from_running_loop:
            # Not waited for by all who call it: Dask's own is no coroutine.
            return asyncio.ensure_future(self._scale(n))
        self._check_open()  # its loop has ended with it
        result: Awaitable[None] | None = self.sync(self._scale, n)
        return result

    async def scale_down(self, workers: list[str]) -> None:
        """Have fewer, by so many; the master says which."""
        await self._scale(max(0, len(self.plan) - len(workers)))

    async def _scale(self, n: int) -> None:
        self._check_open()
        self._asked = n
        await asyncio.to_thread(self._ask, n)

    def _ask(self, n: int) -> None:
        machines = math.ceil(n / processes_each(self._mesh.workers(), self.name))
        with self._borrowing.turn():
            if (there := self._found()) is not None:
                wants = there.demand
                self._borrowing.note({"min": wants.min, "max": wants.max})
            self._mesh.set_group(self.name, min=machines, max=machines)

    def _found(self) -> GroupView | None:
        there = [one for one in self._mesh.groups() if one.name == self.name]
        return there[0] if there else None

    def _check_open(self) -> None:
        if self.status != Status.running:
            msg = f"cluster {self.name} cannot be scaled"
            raise UsageError(msg, why=f"it is {self.status.name}")

    def adapt(self, Adaptive: type = GroupAdaptive, **options: Any) -> Any:  # noqa: N803 - as Dask's
        """Have as many worker processes as the load calls for; see Dask's `Adaptive`.

        `minimum` and `maximum` count processes, as for `scale`.
        """
        return super().adapt(Adaptive=Adaptive, **options)

    # --- what it shows ---

    @property
    def dashboard_link(self) -> str:
        """A link to the dashboard that nobody else can use; "" if there is none."""
        if self._group is None or self.status != Status.running:
            return ""
        try:
            return self._group.dashboard_link
        except AemeshError as error:
            self._no_dashboard = (
                f"{error.what}: {error.why}" if error.why else error.what
            )
            return ""

    def __repr__(self) -> str:
        if self.status == Status.failed:
            return f"AemeshCluster({self.name}, its scheduler is lost)"
        shown: str = super().__repr__()
        return shown

    def _repr_html_(self, cluster_status: str | None = None) -> str:
        """Return what a notebook shows; without a dashboard, it says why."""
        if self.status == Status.failed:
            return f"<p>{html.escape(repr(self))}</p>"
        if not self.dashboard_link and self._no_dashboard:
            row = "<tr><td><strong>Dashboard:</strong> {}</td></tr>"
            text = row.format(html.escape(self._no_dashboard))
            cluster_status = text + (cluster_status or "")
        shown: str = super()._repr_html_(cluster_status)
        return shown

    async def _get_logs(
        self, cluster: bool = True, scheduler: bool = True, workers: Any = True
    ) -> Any:
        logs = await super()._get_logs(
            cluster=cluster, scheduler=scheduler, workers=workers
        )
        if cluster:
            status = await asyncio.to_thread(self._mesh.group_status, self.name)
            logs["Cluster"] = Log("\n".join(event.text for event in status.history))
        return logs


def _undoing(wishes: DemandChange, wants: Demand) -> DemandChange:
    """Return the change that takes these wishes back, from what a group wants now."""
    before: dict[str, Any] = {name: getattr(wants, name) for name in wishes}
    if "settings" in wishes:
        before["settings"] = {n: wants.settings.get(n) for n in wishes["settings"]}
    return cast("DemandChange", before)


async def _beside(call: Callable[[], None]) -> None:
    """Call it in a thread, or here when the interpreter ends and none begins."""
    try:
        done = asyncio.get_running_loop().run_in_executor(None, call)
    except RuntimeError:
        call()
    else:
        await done


@atexit.register
def _close_all() -> None:
    """Close what an interpreter leaves behind, before its threads end."""
    for cluster in list(_OPEN):
        with suppress(Exception):
            if cluster.loop.asyncio_loop.is_running():
                cluster.close(timeout=10)
            else:  # it was asynchronous
                cluster._let_go()  # noqa: SLF001 - of this file


# A fork's clusters are its parent's.
os.register_at_fork(after_in_child=_OPEN.clear)
