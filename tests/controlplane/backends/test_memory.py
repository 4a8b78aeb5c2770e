"""What only the backend without servers has to do: its thread outlives whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from controlplane.backends.memory import MemoryBackend
from core.engine_process import EngineProcess
from core.protocol import Completed, Failed, Job, TerminalEvent
from core.queue_keys import Rules
from tests.support import engine
from tests.support.backends import Place, Recorder, own_env
from tests.support.wait import wait_until_async
from tests.support.workflows import Noop, Sleeper

RULES = Rules(retry_delay_s=0.1)


@contextlib.asynccontextmanager
async def started(process: EngineProcess) -> AsyncIterator[Place]:
    backend, recorder = MemoryBackend(process, RULES), Recorder()
    await backend.start(recorder)
    try:
        yield Place(backend, recorder)
    finally:
        await backend.close()


class OddProcess(EngineProcess):
    """Its first run does something else."""

    def __init__(self, folder: Path, first: Callable[[Job], TerminalEvent]) -> None:
        super().__init__(engine.PATH, env={**os.environ, **own_env(folder)})
        self._first: Callable[[Job], TerminalEvent] | None = first

    def run(self, job: Job, **options: Any) -> TerminalEvent | None:
        first, self._first = self._first, None
        return first(job) if first else super().run(job, **options)


class NoProcess(EngineProcess):
    """The system has no room for a child."""

    def start(self) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")


async def test_an_engine_that_cannot_be_spawned_fails_jobs_and_is_unhealthy() -> None:
    async with started(NoProcess(engine.PATH)) as place:
        last = (await place.ended(await place.submit(Noop), 5))[-1]
        assert isinstance(last, Failed) and last.code == "internal"
        last = (await place.ended(await place.submit(Noop), 5))[-1]
        assert isinstance(last, Failed) and place.backend.reachable
        await wait_until_async(lambda: place.backend.workers()[0].state == "unhealthy")


async def test_after_a_bug_in_one_run_the_next_job_runs(tmp_path: Path) -> None:
    def broken(_: Job) -> TerminalEvent:
        raise RuntimeError("a bug of ours")

    async with started(OddProcess(tmp_path, broken)) as place:
        last = (await place.ended(await place.submit(Noop)))[-1]
        assert isinstance(last, Failed) and last.code == "internal" and "a bug" in last.message
        assert isinstance((await place.ended(await place.submit(Noop)))[-1], Completed)
        assert place.backend.workers()[0].state == "ready"


async def test_a_cancelled_job_that_fails_in_a_passing_way_does_not_run_again(
    tmp_path: Path,
) -> None:
    cancelled = threading.Event()

    def fail(job: Job) -> TerminalEvent:
        cancelled.wait(10)
        return Failed(job_id=job.id, code="delivery_failed", message="", retryable=True)

    async with started(OddProcess(tmp_path, fail)) as place:
        job_id = await place.submit(Sleeper)
        await place.until(job_id, "started")
        await place.backend.cancel(job_id)
        cancelled.set()
        await place.ended(job_id)
        assert place.recorder.types(job_id) == ["queued", "started", "cancelled"]


async def test_it_is_reachable_as_long_as_its_thread_is_there() -> None:
    async with started(NoProcess(engine.PATH)) as place:
        assert place.backend.reachable
    assert not place.backend.reachable
