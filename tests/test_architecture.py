"""The rules of the house: imports, sizes, docstrings, words."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("core", "handler", "controlplane")
SOURCES: Final = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
TESTS: Final = sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))

MAX_FILE_LINES: Final = 400
MAX_FUNCTION_LINES: Final = 60
LARGER: Final[dict[str, int]] = {}
"""Files that may be larger, with their present size: it may only shrink."""

OF_WORKFLOWS: Final = {"workflows", "pipelines", "catalog"}
"""Folders of core whose files are about one workflow or model."""

BANNED_MODULE_NAMES: Final = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "manager",
    "service",
    "misc",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_neither_torch_nor_diffsynth(package: str) -> None:
    """Every module but core.pipelines and handler.compose, in one fresh interpreter."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == package
    ]
    wanted = [m for m in modules if not m.startswith(("core.pipelines", "handler.compose"))]
    code = (
        f"import importlib, sys\nfor m in {wanted!r}: importlib.import_module(m)\n"
        "bad = {'torch', 'diffsynth', 'torchvision', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_and_functions_are_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= LARGER.get(name_of(path), MAX_FILE_LINES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines < MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring) > 15


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_are_named_for_what_they_hold(path: Path) -> None:
    assert path.stem not in BANNED_MODULE_NAMES


def test_only_config_modules_read_the_environment() -> None:
    readers = [
        name_of(path)
        for path in SOURCES
        if path.name != "config.py" and "os.environ" in path.read_text(encoding="utf-8")
    ]
    assert readers == []


def test_no_shared_code_names_a_workflow() -> None:
    """Pages, routes, queue and handlers come from Params; a fourth workflow is one file."""
    named = []
    for path in SOURCES:
        if path.is_relative_to(ROOT / "core") and path.parts[-2] in OF_WORKFLOWS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        named += [
            f"{name_of(path)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in ("i2v", "svi", "qwen")
            if id(node) not in docs
        ]
    assert named == []
