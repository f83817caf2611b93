"""The pages are true: links lead somewhere, files that are named exist, and terminal
blocks that are marked with ``<!-- run -->`` say what is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aemesh.testing.checks import check_engine

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "keys" / "README.md", *(ROOT / "docs").rglob("*.md")]
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|json|sh|md))`")
_RUN = re.compile(r"^<!-- run -->\n```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What differs from run to run: times, and the machine's own name.
_VARIES = re.compile(r"\d+\.\d s$|on [\w-]+$")

# The numbers of a fit may differ in their last digit with another SciPy.
_NUMBER = re.compile(r"-?\d+\.\d+")
TOLERANCE = 0.0005

# An analysis takes seconds; a machine with other things to do takes its time.
RUN_WITHIN = 120.0


def name_of(page: Path) -> str:
    """Return how a page is called in a test's name."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name."""
    text = _FENCE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place) if place else page
        assert found.exists(), f"{target} is nowhere"
        assert not anchor or anchor in anchors(found), f"{target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page: Path):
    for name in _FILE.findall(page.read_text()):
        places = (ROOT, ROOT / "aemesh", ROOT / "docs", ROOT / "tests", page.parent)
        assert any((place / name).exists() for place in places), f"{name} is nowhere"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_reached_from_another(page: Path):
    if page == ROOT / "README.md" or page.parent.name == "changes":
        return
    linked = {
        (other.parent / target.partition("#")[0]).resolve()
        for other in PAGES
        for target in _LINK.findall(other.read_text())
        if other != page
    }

    named = any(name_of(page) in other.read_text() for other in PAGES if other != page)
    assert page in linked or named


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_is_looked_for_in_the_empty_folder_that_it_starts_in(page: Path):
    for line in page.read_text().splitlines():
        assert not re.search(r"aemesh (map|exec) .*-- \.{1,2}/", line), line


def test_the_picture_of_the_house_is_the_same_everywhere():
    pages = [
        ROOT / "docs" / "architecture.md",
        ROOT / "docs" / "decisions" / "0001-the-house-and-its-layers.md",
    ]

    found = {
        re.findall(r"```\n(        __main__.*?)```", p.read_text(), re.S)[0]
        for p in pages
    }

    assert len(found) == 1


# --- what is typed ----------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: the examples, and what was made before."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "examples").symlink_to(ROOT / "examples")
    script = _PYTHON.findall((ROOT / "docs" / "howto" / "run-dask.md").read_text())[0]
    (folder / "script.py").write_text(script)
    return folder


def type_in(folder: Path, command: str) -> str:
    """Run a line of a page in a shell; return what was said on stdout."""
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "AEMESH_STATE": str(folder / "state"),
        },
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def commands() -> list[tuple[str, str, str]]:
    """Return page, command and expected output of each block that is to be run."""
    found = []
    # The tutorial first: it makes the data that the others use.
    first = ROOT / "docs" / "tutorial" / "first-office.md"
    for page in (first, *(page for page in PAGES if page != first)):
        for block in _RUN.findall(page.read_text()):
            for typed in block.split("$ ")[1:]:
                command, _, said = typed.partition("\n")
                found.append((name_of(page), command, said))
    return found


def same(said: str, expected: str) -> bool:
    """Whether two lines agree but for what varies."""
    if _NUMBER.sub("#", said) != _NUMBER.sub("#", expected):
        return _VARIES.sub("", said) == _VARIES.sub("", expected)
    pairs = zip(_NUMBER.findall(said), _NUMBER.findall(expected), strict=True)
    return said.endswith(" s") or all(
        abs(float(one) - float(two)) <= TOLERANCE or "pull" in said
        for one, two in pairs
    )


def test_what_is_marked_to_be_run_says_what_the_page_says(place: Path):
    assert len(commands()) >= 4

    for page, command, expected in commands():
        said = type_in(place, command).splitlines()
        for line, wanted in zip(said, expected.splitlines(), strict=False):
            assert same(line, wanted), f"{page}: {line!r} instead of {wanted!r}"
        assert len(said) >= len(expected.splitlines()), f"{page}: {command}"


async def test_the_engine_of_the_page_does_what_engines_must(tmp_path: Path):
    page = ROOT / "docs" / "howto" / "write-an-engine.md"
    made: dict[str, Any] = {}
    exec(_PYTHON.findall(page.read_text())[0], made)

    await check_engine(made["ENGINE"], tmp_path)
