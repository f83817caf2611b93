"""One group of a running master, as scripts and notebooks have it.

What it hands out (clients, credentials, a page, one that follows the load) lasts until
it is closed.
"""
# Options go to Dask as they are.
# ruff: noqa: ANN401

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aemesh.client.environment import filled, wants_tls
from aemesh.errors import (
    AemeshError,
    EngineError,
    NoMasterError,
    UnknownNameError,
    UnreachableError,
)
from aemesh.host.livefolder import LiveFolder
from aemesh.host.statedir import clients_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    import distributed

    from aemesh.client.control import Control
    from aemesh.client.credentials import Credentials
    from aemesh.client.following import Following
    from aemesh.client.hold import Hold
    from aemesh.client.map import Results
    from aemesh.client.memberjob import MemberJob
    from aemesh.client.page import LoopbackPage
    from aemesh.model.view import (
        ConnectView,
        GroupView,
        OutputView,
        WorkerView,
    )

_T = TypeVar("_T")
_Item = TypeVar("_Item")


class Group:
    """One group with its engine up; a context manager that ends its credentials.

    Clients made by `client` need the credentials at each new connection, so
    close the group after them; it is closed at the latest at the interpreter's exit.
    """

    def __init__(self, mesh: Control, view: ConnectView) -> None:
        self.mesh = mesh
        self.name = view.group
        self.engine = view.engine
        self._view = view
        self._clients = clients_folder(mesh.folder.parent)
        self._credentials: Credentials | None = None
        # All that there were: clients of an engine that is lost may still read them.
        # Without any, a folder: by it the master sees that somebody is there.
        self._kept: list[Credentials | LiveFolder] = []
        self._lock = threading.Lock()
        self._page: LoopbackPage | None = None
        self._following: Following | None = None  # that follows the load

    def status(self) -> GroupView:
        """Return the group as it is now."""
        groups = self.mesh.groups()
        for group in groups:
            if group.name == self.name:
                return group
        kind = "group"
        raise UnknownNameError(kind, self.name, [group.name for group in groups])

    @property
    def workers(self) -> list[WorkerView]:
        """The workers that serve the group now."""
        return [w for w in self.mesh.workers() if w.group == self.name]

    def exec(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Iterator[OutputView]:
        """Run a command on each member; yield its output and exits as they come."""
        return self.mesh.exec(self.name, argv, env)

    def job(
        self, worker: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> MemberJob:
        """Start a command on one member; return it with its input and output."""
        return self.mesh.job(worker, argv, env, group=self.name)

    def hold(self) -> Hold:
        """Keep the group at its size while a block lasts: ``with group.hold():``."""
        return self.mesh.hold(self.name)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a script finds the engine, until `close`.

        The master is asked where it is now; without a master, it is where it was.
        """
        with suppress(NoMasterError, UnreachableError):
            self._look(self.mesh.connect(self.name, members=False))
        state = str(self.mesh.folder.parent)
        with self._lock:
            if not wants_tls(self._view):
                if not self._kept:
                    self._kept.append(LiveFolder(self._clients))
                return filled(self._view, tls=None, state=state)
            if self._credentials is None:
                self._credentials = self._new_credentials()
                self._kept.append(self._credentials)
            return filled(self._view, tls=self._credentials.folder, state=state)

    def client(self, **options: Any) -> distributed.Client:
        """Return a `distributed.Client` of the group; `options` are the Client's.

        Raises `EngineError` if the group runs another engine than Dask, or if its
        scheduler does not answer.
        """
        self._check_dask("client")
        try:
            client = self._new_client(**options)
        except OSError as error:
            msg = f"the scheduler of group {self.name} does not answer"
            raise EngineError(msg, why=str(error)) from error
        # The credentials must live as long as the client: it holds the group.
        client.aemesh_group = self  # type: ignore[attr-defined]
        return client

    def executor(self, **options: Any) -> Executor:
        """Return a `concurrent.futures.Executor` that computes on the group.

        `options` are those of Dask's `Client.get_executor`: `retries`, `resources`, …
        Raises as `client`, and `TypeError` for others.
        """
        self._check_dask("executor")
        from aemesh.client.executor import GroupExecutor, check_options  # noqa: PLC0415

        check_options(options)
        return GroupExecutor(self.client(set_as_default=False), **options)

    @property
    def dashboard_link(self) -> str:
        """A link to the engine's web page, on a port of this machine, until `close`.

        Whoever has the link may see the page; nobody else can.  Raises `EngineError`
        if there is no page: for Dask, bokeh must be installed where its scheduler runs.
        """
        from aemesh.client.page import LoopbackPage  # noqa: PLC0415

        with self._lock:
            if self._page is None:
                self.mesh.open_page(self.name, b"").hang_up()  # is there one?
                self._page = LoopbackPage(partial(self.mesh.open_page, self.name))
            return self._page.link

    def scale(self, n: int) -> None:
        """Have `n` workers, no more and no less as far as there are so many."""
        self._follow(None)
        self.mesh.set_group(self.name, min=n, max=n)

    def adapt(
        self, minimum: int = 0, maximum: int | None = None, **options: Any
    ) -> None:
        """Have between `minimum` and `maximum` workers, as many as the load calls for.

        What that is Dask says, again and again until `close` or `scale`; `options` are
        `every`, `target_duration` (seconds) and `wait_count`, as of Dask's `Adaptive`.
        With another engine the master shares in between.
        """
        following = None
        if self.engine == "dask":
            following = self._new_following(minimum, maximum, **options)
        try:
            self._follow(None)
            self.mesh.set_group(self.name, min=minimum, max=maximum)
        except BaseException:
            if following is not None:
                following.close()
            raise
        self._follow(following)

    def map(
        self,
        function: Callable[[_Item], _T],
        items: Iterable[_Item],
        *,
        key: str | None = None,
        retries: int = 2,
        fresh: bool = False,
    ) -> Results[_T]:
        """Compute `function` of each item on the group; yield the results in order.

        With a `key` each finished item is kept by the master, for good: the same call
        again, after whatever was killed, returns what is kept and computes the rest.
        `fresh` forgets what there is under this key.  An item that raises is tried
        `retries` times more, and raises here when it is its turn.  Within an item,
        `aemesh.checkpoint` and `aemesh.resume` keep its state.

        Raises `OtherWorkError` when the key is that of another function, and
        `EngineError` if the group runs another engine than Dask.
        """
        from aemesh.client.map import start_map  # noqa: PLC0415 - for who maps

        self._check_dask("map; `aemesh map` spreads commands over any group")
        return start_map(
            self.name,
            function,
            items,
            # Where the load calls for workers, nobody comes before there is some.
            connect=lambda: Group(
                self.mesh, self.mesh.connect(self.name, members=False)
            ),
            runs=self.mesh.runs,
            key=key,
            retries=retries,
            fresh=fresh,
        )

    def close(self) -> None:
        """Remove the credentials, and follow no load any more; the group goes on."""
        self._follow(None)
        with self._lock:
            if self._page is not None:
                self._page.close()
                self._page = None
            self._credentials = None
            for one in self._kept:
                one.close()
            self._kept.clear()

    def _look(self, view: ConnectView) -> None:
        """Take note of an engine that was started anew, with another authority."""
        with self._lock:
            if view != self._view:
                self._view, self._credentials = view, None

    def _new_client(self, **options: Any) -> distributed.Client:
        # Loaded here: half a second, for those alone who use it.
        from aemesh.client.daskclient import open_client  # noqa: PLC0415

        environ = self.environment()
        try:
            return open_client(environ, **options)
        except OSError:
            if (now := self.environment()) == environ:
                raise
            return open_client(now, **options)  # it was lost just then

    def _follow(self, following: Following | None) -> None:
        """Let this one follow the load, and no longer the one before."""
        before, self._following = self._following, following
        if before is not None:
            before.close()
        if following is not None:
            following.start()

    def _new_following(
        self, minimum: int, maximum: int | None, **options: Any
    ) -> Following:
        """Return one that may follow the load; it has a client of its own."""
        from aemesh.client.following import Following  # noqa: PLC0415

        def ask(number: int) -> None:
            self.mesh.set_group(self.name, min=minimum, max=number)

        def done() -> None:
            with suppress(AemeshError):  # the master may have ended before us
                self.mesh.set_group(self.name, min=minimum, max=maximum)

        processes = processes_each(self.mesh.workers(), self.name)
        client = self.client(set_as_default=False)
        try:
            return Following(
                client,
                ask,
                done=done,
                processes=processes,
                minimum=minimum,
                maximum=maximum,
                **options,
            )
        except BaseException:
            client.close()  # type: ignore[no-untyped-call]
            raise

    def _check_dask(self, what: str) -> None:
        if self.engine != "dask":
            msg = f"group {self.name} has no Dask {what}"
            raise EngineError(msg, why=f"its engine is {self.engine}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Group {self.name} of {self.mesh.folder}, engine {self.engine}>"

    def _new_credentials(self) -> Credentials:
        # cryptography's x509 is loaded only where a certificate is wanted.
        from aemesh.client.credentials import Credentials  # noqa: PLC0415

        return Credentials(self._clients, lambda csr: self.mesh.certify(self.name, csr))


def processes_each(workers: Iterable[WorkerView], group: str) -> float:
    """Return how many of Dask's processes a worker of this group runs, on average.

    It is one for each core; before any serves the group, of those that may.
    """
    there = list(workers)
    members = [one.cores for one in there if one.group == group]
    cores = members or [one.cores for one in there if one.state == "trusted"] or [1]
    return max(1.0, sum(cores) / len(cores))
