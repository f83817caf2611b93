"""How often strangers may make us write a log line."""

from __future__ import annotations

from dataclasses import dataclass

from aemesh import limits

_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class LogTurn:
    """Whether to write this line, and how many were left out before it."""

    write: bool
    left_out: int = 0


class LogRate:
    """Admits so many lines a minute and counts the rest (threat 89).

    The first line of the next minute tells the count: ``… and 812 more``.
    """

    def __init__(self, per_minute: int = limits.STRANGER_LOGS_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._window_at = float("-inf")
        self._written = 0
        self._left_out = 0

    def turn(self, *, now: float) -> LogTurn:
        """Return whether the line that happens now is written."""
        if now - self._window_at >= _WINDOW:
            self._window_at = now
            self._written = 0
        if self._written >= self._per_minute:
            self._left_out += 1
            return LogTurn(write=False)
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return LogTurn(write=True, left_out=left_out)

    def __repr__(self) -> str:
        return f"<LogRate {self._written} written, {self._left_out} left out>"
