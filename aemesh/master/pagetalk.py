"""One connection to an engine's web page, carried between a client and the engine.

The request's body and its answer are what client and page say to each other; nothing
of it is read here, and nothing is read ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from aemesh.host.control.duplex import Exchange
    from aemesh.plugin import Page

MEDIA_PAGE = "application/vnd.aemesh.page"


async def carry_page(page: Page, exchange: Exchange) -> None:
    """Pass on what both say until the page ends, or the client hangs up."""
    try:
        await exchange.begin(MEDIA_PAGE)
        async with open_crew() as crew:
            crew.start_soon(_pass_on, page, exchange)
            while data := await page.receive():
                await exchange.write(data)
            await exchange.finish()
            crew.cancel_scope.cancel()
    finally:
        with trio.move_on_after(limits.TERM_AFTER, shield=True):
            await page.aclose()


async def _pass_on(page: Page, exchange: Exchange) -> None:
    while data := await exchange.read():
        await page.send(data)
