"""What a job is answered: by its agent where it can, else by its master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.errors import RefusedError
from aemesh.protocol.questions import Self, WhoAmI, encode, question_untrusted, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.model.group import Lease
    from aemesh.model.names import JobId
    from aemesh.worker.relay import Relay


class Answers:
    """Answers one job; `relay` is None where its master takes no questions."""

    def __init__(
        self,
        job_id: JobId,
        *,
        lease: Callable[[], Lease | None],
        worker: str,
        leaves_after: Callable[[], float | None],
        relay: Relay | None,
    ) -> None:
        self._job_id = job_id
        self._lease = lease
        self._worker = worker
        self._leaves_after = leaves_after
        self._relay = relay

    def __repr__(self) -> str:
        return f"<Answers to {self._job_id}>"

    async def answer(self, question: bytes) -> bytes:
        """Return what the job is answered; raises `BadMessage` for nonsense."""
        words, _ = question_untrusted(question)
        if isinstance(words, WhoAmI):
            return self._self()
        if self._relay is None:
            what = "nothing is kept for this job"
            return refused(RefusedError(what, why="its master takes no questions"))
        return await self._relay.ask(question)

    def _self(self) -> bytes:
        lease = self._lease()
        return encode(
            Self(
                job=self._job_id,
                group=lease.group if lease else "",
                generation=lease.generation if lease else 0,
                worker=self._worker,
                master=str(lease.master) if lease else "",
                leaves_after=self._leaves_after(),
            )
        )
