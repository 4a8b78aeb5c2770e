"""Outputs are whole or absent."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from core.errors import StorageFailed
from core.protocol import Job
from core.storage import LocalStorage, storage_failed

JOB = Job(id="job-1", workflow="i2v", params={}, attempt=2)


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_committed_file_is_in_place_with_its_hash(tmp_path: Path) -> None:
    with LocalStorage(tmp_path).new_file(JOB, "a.mp4") as file:
        file.path.write_bytes(b"film")
        assert files(tmp_path) == ["job-1/2/.a.mp4.2.partial.mp4"]
        stored = file.commit()
    assert files(tmp_path) == ["job-1/2/a.mp4"]
    assert stored.sha256 == hashlib.sha256(b"film").hexdigest()
    assert (stored.url, stored.size_bytes) == ("job-1/2/a.mp4", 4)


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with pytest.raises(RuntimeError), storage.new_file(JOB, "a.mp4") as file:
        file.path.write_bytes(b"half")
        raise RuntimeError
    assert files(tmp_path) == []


def test_a_full_disk_is_storage_failed_and_tells_what_is_free(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with pytest.raises(StorageFailed, match="no space left on device .* MB free"):
        with storage.new_file(JOB, "a.mp4"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_another_os_error_stays_itself(tmp_path: Path) -> None:
    error = OSError(errno.EIO, "broken")
    assert storage_failed(error, tmp_path) is error


def test_sweep_removes_earlier_attempts_only(tmp_path: Path) -> None:
    for attempt in ("1", "2", "3", "notes"):
        (tmp_path / JOB.id / attempt).mkdir(parents=True)
    LocalStorage(tmp_path).sweep(JOB)
    assert sorted(p.name for p in (tmp_path / JOB.id).iterdir()) == ["2", "3", "notes"]
