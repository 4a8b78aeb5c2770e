"""A full disk, where the record is all that keeps a job."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.backends.memory import MemoryBackend
from controlplane.jobs import Jobs
from controlplane.store import AtomicStorage, JobStore
from controlplane.uploads import Uploads
from core.engine_process import EngineProcess
from core.errors import ConfigError, StorageFailed
from core.protocol import JobStatus
from core.queue_keys import Rules
from core.workflows import register
from tests.support import engine, workflows
from tests.support.disk import small_disk
from tests.support.loras import no_loras
from tests.support.wait import wait_until_async


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    for path in workflows.ALL.split(","):
        register(path)
    folders = {f"DIFFBOX_{n}_DIR": str(tmp_path) for n in ("DATA", "MODELS", "OUTPUTS")}
    env = {**os.environ, "DIFFBOX_WORKFLOWS": workflows.ALL, **folders}
    jobs = Jobs(
        backend=MemoryBackend(EngineProcess(engine.PATH, grace_s=0.5, env=env), Rules()),
        store=JobStore(tmp_path / "jobs.json"),
        uploads=Uploads(tmp_path / "uploads", image_max_bytes=1, video_max_bytes=1),
        loras=no_loras(tmp_path),
    )
    await jobs.start()
    yield jobs
    await jobs.close()


async def test_a_job_that_cant_be_kept_is_refused_and_does_not_run(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: AtomicStorage, data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(AtomicStorage, "write", full)
        with pytest.raises(StorageFailed, match="no space left on device"):
            await jobs.submit("sleeper", {"seconds": 60, "steps": 600})
    (record,) = jobs.page().jobs
    await wait_until_async(lambda: jobs.get(record.id).status is JobStatus.CANCELLED)


def test_a_folder_that_cant_be_written_is_told_as_a_setting(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "data", "size=64k,ro") as folder,
        pytest.raises(ConfigError, match="DIFFBOX_DATA_DIR: .* can't be written: Read-only"),
    ):
        JobStore(folder / "jobs.json")
