"""Small and read-only disks, as tmpfs mounts; a test that may not mount is skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CHUNK = 4096


@contextmanager
def small_disk(folder: Path, options: str = "size=64k") -> Iterator[Path]:
    """A disk of its own at `folder`; `options` are tmpfs's ("ro" makes it read-only)."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(argv, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"may not mount a tmpfs here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use up all space of a small disk; removing the file frees it."""
    path = folder / "fill"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(_CHUNK)):
            pass
    return path
