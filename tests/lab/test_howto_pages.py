"""The pages on how to do things are true: what they type is typed on real hosts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aemesh.testing import kdc as kdcs
from aemesh.testing.kdc import open_kdc
from tests.lab.office import LAB
from tests.lab.terminal_pages import PageError, read_steps, type_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.lab.office import Office
    from tests.lab.terminal_pages import Surroundings

pytestmark = LAB

DOCS = Path(__file__).parents[2] / "docs"
ONE, TWO = (f"SHA256:{letter * 43}" for letter in "ab")
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if page.stem != "kerberos" and read_steps(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_what_a_page_types_on_its_hosts_says_what_it_shows(page: Path):
    await type_page(page)


@pytest.mark.skipif(bool(kdcs.missing()), reason=kdcs.missing())
async def test_the_page_on_kerberos_is_typed_at_a_real_site():
    """Shows: T8."""
    pytest.importorskip("gssapi", reason="no gssapi here; `.ci/kerberos` adds it")

    await type_page(DOCS / "howto" / "kerberos.md", open_site)


@asynccontextmanager
async def open_site(office: Office) -> AsyncIterator[Surroundings]:
    """Run the site's KDC on the host `kdc`; it knows alice."""
    host = office.host("kdc")
    folder = host.folder / "kdc"
    folder.mkdir()
    async with open_kdc(folder, host=host) as kdc:
        await kdc.add_user("alice", "down the rabbit hole")
        around = {one.name: kdc.settle(one) for one in office.lab}
        around["kdc"]["KRB5_KDC_PROFILE"] = str(folder / "kdc.conf")
        yield around


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (f"laptop$ echo {ONE}\n{ONE}\nlaptop$ echo {TWO}\n{ONE}", ":6: '.*' was not"),
        ("laptop$ aemesh key show", ":3: it ended with"),
        ("laptop$ echo fine\naemesh: error: no", ":4: .* was not said"),
    ],
)
async def test_a_page_that_is_not_true_is_named_with_its_line(
    tmp_path: Path, block: str, told: str
):
    page = tmp_path / "wrong.md"
    page.write_text(f"<!-- lab -->\n```console\n{block}\n```\n")

    with pytest.raises(PageError, match=f"wrong.md{told}"):
        await type_page(page)


async def test_a_stick_goes_from_host_to_host_and_what_is_left_running_is_told(
    tmp_path: Path,
):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- lab -->\n```console\nlaptop$ hostname > /media/stick/name\n"
        "office-1$ cat /media/stick/name\nlaptop\noffice-1$ sleep 1000 &\n```\n"
    )

    with pytest.raises(PageError, match=r"page.md: .*sleep.* on office-1"):
        await type_page(page)
