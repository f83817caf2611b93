"""What a departure came to, as it is told to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aemesh.model.group import Receipt


def receipt_line(receipt: Receipt) -> str:
    """Return a receipt as one line for people."""
    if not receipt.group:
        return "it served nobody: nothing was moved"
    if not receipt.member:
        return f"it left {receipt.group} in time; its master did not say what moved"
    peace = "in peace" if receipt.graceful else "in haste"
    return (
        f"{receipt.member} left {receipt.group} {peace} in {receipt.took_after:.1f} s: "
        f"{receipt.moved} pieces of data moved ({size(receipt.moved_bytes)}), "
        f"{receipt.lost} lost; {receipt.finished} tasks finished, "
        f"{receipt.restarted} cut off"
    )


def size(count: int) -> str:
    """Return a number of bytes in kB, MB or GB."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} B"
