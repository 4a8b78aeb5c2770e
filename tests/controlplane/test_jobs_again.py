"""What is asked of the queue again: what it lost, what it had no room for, and who has died.

There is no worker here: the tests are the worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.backends.valkey import ValkeyBackend
from controlplane.jobs import Jobs
from controlplane.records import JobRecord
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from core.errors import BackendUnavailable
from core.protocol import Completed, Event, Job, JobStatus
from core.queue import Queue
from core.workflows import register
from tests.support.loras import no_loras
from tests.support.valkey import RULES, Valkey, module_valkey, queue, valkey  # noqa: F401
from tests.support.wait import wait_until_async
from tests.support.workflows import ALL

for path in ALL.split(","):
    register(path)

ONE_A_LANE = replace(RULES, lane_limit=1)
RETRY_S = 0.3


@contextlib.asynccontextmanager
async def running(backend: ValkeyBackend, folder: Path) -> AsyncIterator[Jobs]:
    """One life of a control plane."""
    uploads = Uploads(folder / "uploads", image_max_bytes=1_000_000, video_max_bytes=1_000_000)
    store = JobStore(folder / "jobs.json")
    jobs = Jobs(
        backend=backend, store=store, uploads=uploads, loras=no_loras(folder), retry_s=RETRY_S
    )
    try:
        yield jobs
    finally:
        await jobs.close()


async def begin(jobs: Jobs, backend: ValkeyBackend) -> None:
    await jobs.start()
    await wait_until_async(lambda: backend.reachable)


async def until(jobs: Jobs, job_id: str, status: JobStatus) -> None:
    await wait_until_async(lambda: jobs.get(job_id).status is status, 15)


async def one_waits(url: str, folder: Path) -> JobRecord:
    """A job that was submitted in an earlier life."""
    backend = ValkeyBackend(url, RULES)
    async with running(backend, folder) as jobs:
        await begin(jobs, backend)
        return await jobs.submit("noop", {})


class SlowAnswer(ValkeyBackend):
    """The job arrives and its first event is told, then the answer is lost."""

    told: str | None = None

    async def submit(self, job: Job) -> None:
        await super().submit(job)
        await wait_until_async(lambda: self.told == job.id)
        self._active.pop(job.id)
        raise BackendUnavailable("the reply was lost")


async def test_a_refused_job_whose_first_event_was_told_ends_cancelled(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Whoever was told 503 submits again, and must not get two videos."""
    backend = SlowAnswer(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        jobs.subscribe(lambda record, _: setattr(backend, "told", record.id))
        await begin(jobs, backend)
        with pytest.raises(BackendUnavailable):
            await jobs.submit("noop", {})
        [record] = jobs.page().jobs
        await until(jobs, record.id, JobStatus.CANCELLED)
        assert queue.job(record.id)["status"] == "cancelled"


async def test_a_job_that_has_ended_here_does_not_run_again_there(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The queue lost its last second in a power cut, and the job would overwrite its outputs."""
    record = await one_waits(valkey.url, tmp_path)
    claim = queue.take("w", block_s=5)
    assert claim
    backend = ValkeyBackend(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        await begin(jobs, backend)
        queue.finish(claim, Completed(job_id=record.id, artifacts=()))
        await until(jobs, record.id, JobStatus.COMPLETED)
    queue.client.flushall()
    queue.prepare()
    queue.enqueue(record.job())
    backend = ValkeyBackend(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        await begin(jobs, backend)
        await wait_until_async(lambda: queue.job(record.id)["status"] == "cancelled")
        assert jobs.get(record.id).status is JobStatus.COMPLETED


class CancelsMeanwhile(ValkeyBackend):
    """While the first job is taken up, somebody cancels the second one."""

    jobs: Jobs
    cancelled = ""

    async def follow(self, job_id: str, after: str = "") -> None:
        await super().follow(job_id, after)
        if self.cancelled > job_id:
            await self.jobs.cancel(self.cancelled)


async def test_a_lost_job_that_is_cancelled_while_others_are_taken_up_does_not_run(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    first = await one_waits(valkey.url, tmp_path)
    second = await one_waits(valkey.url, tmp_path)
    queue.client.flushall()
    queue.prepare()
    queue.enqueue(first.job())
    backend = CancelsMeanwhile(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        backend.jobs, backend.cancelled = jobs, second.id
        await begin(jobs, backend)
        await until(jobs, second.id, JobStatus.CANCELLED)
        assert queue.job(second.id).get("status", "cancelled") == "cancelled"
        await jobs.cancel(first.id)
        await until(jobs, first.id, JobStatus.CANCELLED)


async def test_a_job_that_is_put_in_again_is_told(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    record = await one_waits(valkey.url, tmp_path)
    claim = queue.take("w", block_s=5)
    assert claim
    backend = ValkeyBackend(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        await begin(jobs, backend)
        await until(jobs, record.id, JobStatus.RUNNING)
    queue.client.flushall()
    backend = ValkeyBackend(valkey.url, RULES)
    told: list[tuple[JobStatus, Event | None]] = []
    async with running(backend, tmp_path) as jobs:
        jobs.subscribe(lambda record, event: told.append((record.status, event)))
        await begin(jobs, backend)
        await wait_until_async(lambda: len(told) > 1)
        assert told[0] == (JobStatus.QUEUED, None)
        await jobs.cancel(record.id)
        await until(jobs, record.id, JobStatus.CANCELLED)


async def test_a_cancel_whose_worker_died_before_it_heard_ends_after_the_lease(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    valkey.wait_until_leases_count()
    backend = ValkeyBackend(valkey.url, RULES)
    async with running(backend, tmp_path) as jobs:
        await begin(jobs, backend)
        record = await jobs.submit("noop", {})
        assert queue.take("dies", block_s=5)
        await until(jobs, record.id, JobStatus.RUNNING)
        assert (await jobs.cancel(record.id)).status is JobStatus.RUNNING
        await until(jobs, record.id, JobStatus.CANCELLED)


async def test_a_lost_job_whose_lane_is_full_goes_in_when_there_is_room(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    records = [await one_waits(valkey.url, tmp_path) for _ in range(3)]
    first, second, third = (record.id for record in records)
    queue.client.flushall()
    backend = ValkeyBackend(valkey.url, ONE_A_LANE)
    async with running(backend, tmp_path) as jobs:
        await begin(jobs, backend)
        await wait_until_async(lambda: queue.job(first))
        await jobs.cancel(third)
        assert jobs.get(third).status is JobStatus.CANCELLED and not queue.job(third)
        await jobs.cancel(first)
        await wait_until_async(lambda: queue.job(second))
        await jobs.cancel(second)
        await until(jobs, second, JobStatus.CANCELLED)
        assert not jobs.unfinished()
