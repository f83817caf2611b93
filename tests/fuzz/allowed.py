"""What a decoder may raise, and how it must be said: for a terminal, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aemesh.errors import AemeshError

# Of the words of a stranger 80 characters are shown, each an escape of ten at most.
_LONGEST = 2000


@contextmanager
def allowed(*kinds: type[Exception]) -> Iterator[None]:
    """Pass over these errors; what they say must be fit to be shown."""
    try:
        yield
    except kinds as error:
        check_told(str(error))
        if isinstance(error, AemeshError):
            check_told(f"{error.what}{error.why}{error.hint}")


def check_told(text: str) -> None:
    """Assert that a sentence about a stranger cannot be one of the stranger's own."""
    assert text.isprintable(), ascii(text)
    assert len(text) <= _LONGEST, len(text)
