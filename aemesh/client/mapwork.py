"""The items of one map: which wait, which are handed out, what came of the others.

It knows no engine and does no I/O.  One thread hands out and takes in, another waits
for what comes.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from aemesh.client.itemtask import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Kept(enum.Enum):
    """What stands for a value that the master keeps."""

    KEPT = "kept"


Result = bytes | Failure | Kept


class Work:
    """`count` items by their number; each gets one result, after some retries."""

    def __init__(self, count: int, *, done: Iterable[int] = (), retries: int) -> None:
        self.count = count
        self._retries = retries
        self._results: dict[int, Result] = dict.fromkeys(done, Kept.KEPT)
        self._waiting = deque(n for n in range(count) if n not in self._results)
        self._tries: Counter[int] = Counter()
        # Those that were on a process that died: each is out alone, once the others
        # are done, for then it is known whose fault it is.
        self._suspects: deque[int] = deque()
        self._suspected: set[int] = set()
        self._out: set[int] = set()
        self._error: BaseException | None = None
        self._news = threading.Condition()

    def __repr__(self) -> str:
        return f"<Work: {len(self._results)} of {self.count} items done>"

    @property
    def is_over(self) -> bool:
        """Whether every item has its result, or the whole has failed."""
        return len(self._results) == self.count or self._error is not None

    @property
    def left(self) -> int:
        """How many items may be handed out now."""
        if self._out & self._suspected:
            return 0
        if self._waiting or self._out:
            return len(self._waiting)
        return len(self._suspects)

    def take(self, size: int) -> list[int]:
        """Hand the next items out, at most `size`; in their order, retries first."""
        count = min(size, self.left)
        if self._waiting:
            taken = [self._waiting.popleft() for _ in range(count)]
        else:
            taken = [self._suspects.popleft()] if count else []
        self._out.update(taken)
        return taken

    def settle(
        self, numbers: Sequence[int], results: Sequence[bytes | Failure | None]
    ) -> None:
        """Take in what came of a batch; items that failed wait for another try."""
        again = []
        self._out.difference_update(numbers)
        with self._news:
            for number, result in zip(numbers, results, strict=True):
                if isinstance(result, Failure) and self._may_retry(number):
                    again.append(number)
                else:
                    self._results[number] = Kept.KEPT if result is None else result
            self._news.notify_all()
        self.put_back(again)

    def broke(self, numbers: Sequence[int], failure: Failure) -> bool:
        """A batch did not come back; return whether it may be another's fault.

        It is an item's own if nothing else was out.  Else each waits to be alone.
        """
        if self._suspected.issuperset(numbers):
            self.settle(numbers, [failure])
            return False
        self._out.difference_update(numbers)
        self._suspects.extend(numbers)
        self._suspected.update(numbers)
        return True

    def put_back(self, numbers: Sequence[int]) -> None:
        """Have items wait again that were handed out: it was nobody's fault."""
        self._out.difference_update(numbers)
        for number in reversed(numbers):
            if number in self._suspected:
                self._suspects.appendleft(number)
            else:
                self._waiting.appendleft(number)

    def fail(self, error: BaseException) -> None:
        """End the whole: whoever waits gets the first such error."""
        with self._news:
            self._error = self._error or error
            self._news.notify_all()

    def wait(self, number: int) -> Result:
        """Return an item's result once it has one, or raise what ended the whole."""
        with self._news:
            self._news.wait_for(lambda: number in self._results or self._error)
            if number in self._results:
                return self._results[number]
            assert self._error is not None
            raise self._error

    def drop(self, number: int) -> None:
        """Forget a value that was given away: nobody asks for it again."""
        if isinstance(self._results.get(number), bytes):
            self._results[number] = Kept.KEPT

    def kept_from(self, number: int, *, most: int) -> list[int]:
        """Return the items from this one on that are all kept now."""
        end = number
        while end < min(self.count, number + most):
            if self._results.get(end) is not Kept.KEPT:
                break
            end += 1
        return list(range(number, end))

    def check(self) -> None:
        """Assert what always holds."""
        waiting = [*self._waiting, *self._suspects, *self._out]
        assert not set(waiting) & self._results.keys()
        assert len(set(waiting)) == len(waiting)
        assert len(self._out) == 1 or not self._out & self._suspected
        assert all(tries <= self._retries + 1 for tries in self._tries.values())

    def _may_retry(self, number: int) -> bool:
        self._tries[number] += 1
        return self._tries[number] <= self._retries
