"""What was measured, as a table of rows with a verdict where there is a budget."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one thing in one unit."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The one in the middle."""
        return median(self.values)

    def __str__(self) -> str:
        """Say ``median [least–most] unit, n``."""
        low, high = _short(min(self.values)), _short(max(self.values))
        return f"{_short(self.median)} [{low}–{high}] {self.unit}, n={len(self.values)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what, what came, what it is held against."""

    what: str
    ours: Measured
    against: Measured | None = None
    against_what: str = ""
    limit: float | None = None  # of the ratio if there is `against`, else of the median

    @property
    def ratio(self) -> float | None:
        """How many times the other's."""
        return self.ours.median / self.against.median if self.against else None

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED`` or nothing."""
        if self.limit is None:
            return ""
        value = self.ratio if self.ratio is not None else self.ours.median
        return "met" if value <= self.limit else "MISSED"

    def cells(self) -> list[str]:
        """Return the texts of the line."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        against = f"{self.against_what}: {self.against}" if self.against else ""
        limit = "" if self.limit is None else f"≤ {self.limit:g}"
        if self.limit is not None:
            limit += " ×" if self.against else f" {self.ours.unit}"
        return [self.what, str(self.ours), against, ratio, limit, self.verdict]


HEAD = ["what", "aemesh", "against", "ratio", "budget", ""]


def as_text(rows: list[Row]) -> str:
    """Return the table for a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def as_markdown(rows: list[Row]) -> str:
    """Return the table for a page."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
