"""What is free: in containers, whose count of memory includes files that were read."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.pipelines import device
from core.pipelines.device import host_memory, own_memory

GIB = 1024**3


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container that may have 1 GiB, and has 0.75 GiB, most of it files."""
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB * 3 // 4}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon {GIB // 4}\nfile {GIB // 2}\ninactive_file {GIB // 4}\nactive_file {GIB // 4}\n"
    )
    return tmp_path


def test_files_that_were_read_count_as_free(container: Path) -> None:
    assert host_memory() == (GIB, GIB * 3 // 4)


def test_a_container_without_figures_has_none_taken(container: Path) -> None:
    for name in ("memory.current", "memory.stat"):
        (container / name).unlink()
    assert host_memory() == (GIB, GIB)


def test_own_memory_is_what_this_process_holds() -> None:
    before = own_memory()
    held = bytearray(64 * 1024**2)
    held[::4096] = b"x" * (len(held) // 4096)
    assert own_memory() - before > 60 * 1024**2
