"""A control plane's Jobs on the memory backend, with the fake workflows: no server, no weights."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.backends.memory import MemoryBackend
from controlplane.jobs import Jobs
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from core.engine_process import EngineProcess
from core.queue_keys import Rules
from core.workflows import register
from tests.support import engine, workflows
from tests.support.loras import no_loras


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    for path in workflows.ALL.split(","):
        register(path)
    child_env = {
        **os.environ,
        "DIFFBOX_WORKFLOWS": workflows.ALL,
        **{f"DIFFBOX_{n}_DIR": str(tmp_path / n.lower()) for n in ("DATA", "MODELS", "OUTPUTS")},
    }
    process = EngineProcess(engine.PATH, grace_s=0.5, env=child_env)
    uploads = Uploads(
        tmp_path / "data" / "uploads", image_max_bytes=1_000_000, video_max_bytes=1_000_000
    )
    jobs = Jobs(
        backend=MemoryBackend(process, Rules(max_crashes=3, retry_delay_s=0.1)),
        store=JobStore(tmp_path / "data" / "jobs.json"),
        uploads=uploads,
        loras=no_loras(tmp_path),
    )
    await jobs.start()
    yield jobs
    await jobs.close()
