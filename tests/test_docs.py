"""What the README says is so: settings, workflows, commands, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from core.catalog import LORAS, PRESETS
from core.workflows import WORKFLOWS

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS: Final = [ROOT / name / "config.py" for name in ("core", "handler", "controlplane")]


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bDIFFBOX_[A-Z_]+\b", text))


def test_every_setting_that_the_code_reads_is_in_the_readme() -> None:
    read = set[str]()
    for path in CONFIGS:
        read |= variables(path.read_text(encoding="utf-8"))
    assert read - variables(README) == set()


def test_every_setting_in_the_readme_is_read_somewhere() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for name in ("core", "handler", "controlplane")
        for path in (ROOT / name).rglob("*.py")
    )
    assert variables(README) - variables(sources) == set()


@pytest.mark.parametrize("workflow", [known.id for known in WORKFLOWS])
def test_every_workflow_is_in_the_readme(workflow: str) -> None:
    assert f"`{workflow}`" in README


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/benchmarks.md", "docs/loras.md"],
)
def test_links_between_our_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`((?:core|handler|controlplane)/[\w/]+\.py)`", text)):
        assert (ROOT / name).is_file(), name


def test_the_version_is_the_changelogs_newest_or_unreleased() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    newest = re.search(r"^## \[(.+?)\]", changelog, re.M)
    assert newest
    assert newest[1] in ("Unreleased", version[1])


def test_every_lora_and_preset_is_in_its_document() -> None:
    text = (ROOT / "docs/loras.md").read_text(encoding="utf-8")
    for ref in LORAS:
        files = [file for file in ref.files if not ref.demo]
        assert all(f"`{file.repo}`" in text for file in files)
    for preset in PRESETS:
        assert f"`{preset.id}`" in text
