"""Exit 0 when this interpreter has diffbox from this tree with the given extras, as installed.

python scripts/satisfied.py dev      says what is missing otherwise
"""

import re
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras: list[str]) -> list[Requirement]:
    """All of the project's own requirements, those of extras of extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = list(project["dependencies"])
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", line)
            listed += map(str, requirements(own[1].split(","))) if own else [line]
    return [Requirement(line) for line in listed]


def problem(requirement: Requirement) -> str:
    """What is wrong with it here, or ""."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement} is not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version} is not {requirement.specifier}"


def main() -> None:
    """Check, and say what is wrong."""
    spec = find_spec("controlplane")
    problems = [text for needed in requirements(sys.argv[1:]) if (text := problem(needed))]
    if spec is None or not spec.origin or not Path(spec.origin).is_relative_to(ROOT):
        problems.append(f"diffbox is not installed from {ROOT}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
