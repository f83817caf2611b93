"""An engine of a third party, as its package in `examples` has it."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from aemesh.testing import checks

pytest.importorskip("ipyparallel")

PACKAGE = Path(__file__).parents[2] / "examples/ipyparallel-engine"
CODE = PACKAGE / "aemesh_ipyparallel/__init__.py"
MAY_SEE = {"aemesh.plugin", "aemesh.model", "aemesh.errors"}


async def test_a_third_partys_engine_does_what_engines_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows: E1; found by the entry point that its package names."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    point = project["entry-points"]["aemesh.engines"]["ipyparallel"]
    module, _, name = point.partition(":")

    engine = getattr(import_module(module), name)

    assert engine.name == "ipyparallel"
    await checks.check_engine(engine, tmp_path)
    del sys.modules[module]


def test_it_sees_the_contract_and_the_nouns_and_is_short() -> None:
    tree = ast.parse(CODE.read_text())
    seen = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aemesh")
    }
    assert {".".join(one.split(".")[:2]) for one in seen} <= MAY_SEE
    assert len(code_lines(tree)) < 80


def code_lines(tree: ast.Module) -> set[int]:
    """Return the lines that hold code: no comment, no docstring, no blank."""
    docs: set[int] = set()
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())) as text, *_]:
                docs |= set(range(text.lineno, (text.end_lineno or 0) + 1))
    lines = map(str.strip, CODE.read_text().splitlines())
    held = {at for at, line in enumerate(lines, 1) if line and line[0] != "#"}
    return held - docs
