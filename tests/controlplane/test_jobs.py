"""Jobs: the records are the truth, the queue is the transport, and a restart loses nothing.

There is no worker here: the tests are the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.backends.valkey import ValkeyBackend
from controlplane.jobs import Jobs
from controlplane.records import JobRecord
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from core.errors import BackendUnavailable, NotFound, QueueFull
from core.protocol import Completed, Event, Job, JobStatus, Progress, Stage
from core.queue import Claim, Queue
from core.workflows import register
from tests.support.backends import new_job
from tests.support.loras import no_loras
from tests.support.valkey import RULES, Valkey, module_valkey, queue, valkey  # noqa: F401
from tests.support.wait import wait_until_async
from tests.support.workflows import ALL, Noop

for path in ALL.split(","):
    register(path)


def make_jobs(backend: ValkeyBackend, folder: Path) -> Jobs:
    uploads = Uploads(folder / "uploads", image_max_bytes=1_000_000, video_max_bytes=1_000_000)
    store = JobStore(folder / "jobs.json")
    return Jobs(backend=backend, store=store, uploads=uploads, loras=no_loras(folder))


@contextlib.asynccontextmanager
async def running(url: str, folder: Path) -> AsyncIterator[Jobs]:
    """One life of a control plane."""
    backend = ValkeyBackend(url, RULES)
    jobs = make_jobs(backend, folder)
    await jobs.start()
    try:
        await wait_until_async(lambda: backend.reachable)
        yield jobs
    finally:
        await jobs.close()


def take(queue: Queue) -> Claim:  # noqa: F811
    claim = queue.take("w", block_s=5)
    assert claim
    return claim


def complete(queue: Queue, claim: Claim) -> None:  # noqa: F811
    queue.finish(claim, Completed(job_id=claim.job.id, artifacts=()))


async def until(jobs: Jobs, job_id: str, status: JobStatus) -> JobRecord:
    def reached() -> bool:
        with contextlib.suppress(NotFound):
            return jobs.get(job_id).status is status
        return False

    await wait_until_async(reached, 20)
    return jobs.get(job_id)


async def test_a_record_follows_its_job(valkey: Valkey, queue: Queue, tmp_path: Path) -> None:  # noqa: F811
    async with running(valkey.url, tmp_path) as jobs:
        record = await jobs.submit("noop", {"prompt": "a"}, "high")
        assert record.status is JobStatus.QUEUED and record.lane == "high"
        claim = take(queue)
        await until(jobs, record.id, JobStatus.RUNNING)
        queue.beat(claim, Progress(job_id=record.id, stage=Stage.DENOISING, step=3, fraction=0.5))
        await wait_until_async(lambda: jobs.get(record.id).progress.step == 3)
        complete(queue, claim)
        assert (await until(jobs, record.id, JobStatus.COMPLETED)).worker == "w"


async def test_what_ended_while_we_were_away_is_seen_after_the_restart(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await jobs.submit("noop", {})
    complete(queue, take(queue))
    async with running(valkey.url, tmp_path) as jobs:
        await until(jobs, record.id, JobStatus.COMPLETED)


async def test_a_job_that_the_queue_has_lost_is_put_in_again(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await jobs.submit("noop", {"prompt": "again"})
        take(queue)
        await until(jobs, record.id, JobStatus.RUNNING)
    queue.client.flushall()
    async with running(valkey.url, tmp_path) as jobs:
        claim = take(queue)
        assert claim.job.id == record.id and claim.job.params == record.params
        complete(queue, claim)
        assert (await until(jobs, record.id, JobStatus.COMPLETED)).attempt == 2


async def test_jobs_are_put_in_again_when_the_server_comes_back_empty(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    worker = Queue.connect(server.url, RULES)
    try:
        async with running(server.url, tmp_path) as jobs:
            record = await jobs.submit("noop", {})
            server.kill()
            shutil.rmtree(server.server.folder / "appendonlydir")
            server.start()
            claim = await wait_until_async(lambda: worker.take("w", block_s=0.1), 20)
            assert claim
            complete(worker, claim)
            assert claim.job.id == record.id
            await until(jobs, record.id, JobStatus.COMPLETED)
    finally:
        worker.client.close()
        server.close()


async def test_a_job_without_a_record_is_adopted(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    """We were killed between the queue's answer and the file; or another program put it in."""
    before, after = new_job(Noop, "low", prompt="before"), new_job(Noop, prompt="after")
    queue.enqueue(before)
    complete(queue, take(queue))
    async with running(valkey.url, tmp_path) as jobs:
        record = await until(jobs, before.id, JobStatus.COMPLETED)
        assert record.params == before.params and record.lane == "low"
        queue.enqueue(after)
        complete(queue, take(queue))
        await until(jobs, after.id, JobStatus.COMPLETED)
        assert [r.id for r in jobs.page().jobs] == [after.id, before.id]


async def test_a_cancel_while_the_queue_is_away_is_passed_on_later(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    try:
        async with running(server.url, tmp_path) as jobs:
            record = await jobs.submit("noop", {})
            server.kill()
            assert (await jobs.cancel(record.id)).cancel_requested
            server.start()
            await until(jobs, record.id, JobStatus.CANCELLED)
    finally:
        server.close()


async def test_while_the_queue_is_away_only_submitting_fails(tmp_path: Path) -> None:
    backend = ValkeyBackend(f"unix://{tmp_path}/nothing.sock", RULES)
    jobs = make_jobs(backend, tmp_path)
    await jobs.start()
    with pytest.raises(BackendUnavailable):
        await jobs.submit("noop", {})
    assert jobs.page().jobs == () and jobs.unfinished() == ()
    await jobs.close()


class LostReply(ValkeyBackend):
    """The job arrives, the answer does not."""

    async def submit(self, job: Job) -> None:
        await super().submit(job)
        self._active.pop(job.id)
        raise BackendUnavailable("the reply was lost")


async def test_a_job_that_arrived_although_it_was_refused_does_not_run(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Whoever was told 503 submits again, and must not get two videos."""
    backend = LostReply(valkey.url, RULES)
    jobs = make_jobs(backend, tmp_path)
    await jobs.start()
    await wait_until_async(lambda: backend.reachable)
    with pytest.raises(BackendUnavailable):
        await jobs.submit("noop", {})
    [job_id] = await backend.job_ids()
    await wait_until_async(lambda: queue.job(job_id)["status"] == "cancelled")
    assert jobs.page().jobs == ()
    await jobs.close()


async def test_a_refused_job_leaves_no_record(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        records = [await jobs.submit("noop", {}) for _ in range(RULES.lane_limit)]
        with pytest.raises(QueueFull):
            await jobs.submit("noop", {})
        assert len(jobs.page(limit=200).jobs) == RULES.lane_limit
        for record in records:
            await jobs.cancel(record.id)
        await wait_until_async(lambda: not jobs.unfinished())


async def test_following_one_job_ends_with_it(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await jobs.submit("noop", {})
        worker = asyncio.create_task(asyncio.to_thread(lambda: complete(queue, take(queue))))
        seen = [r.status async for r in jobs.follow(record.id)]
        await worker
        assert seen[-1] is JobStatus.COMPLETED
        with pytest.raises(NotFound):
            await anext(jobs.follow("nobody"))


async def test_subscribers_hear_every_change_until_they_leave(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    tmp_path: Path,
) -> None:
    heard: list[str] = []

    def broken(_: JobRecord, __: Event | None) -> None:
        raise RuntimeError("a bug of a page")

    async with running(valkey.url, tmp_path) as jobs:
        jobs.subscribe(broken)
        leave = jobs.subscribe(lambda _, event: heard.append(event.type if event else "asked"))
        record = await jobs.submit("noop", {})
        await wait_until_async(lambda: heard == ["queued"])
        await jobs.cancel(record.id)
        await until(jobs, record.id, JobStatus.CANCELLED)
        leave()
        last = await jobs.submit("noop", {})
        await jobs.cancel(last.id)
        await until(jobs, last.id, JobStatus.CANCELLED)
    assert heard == ["queued", "asked", "cancelled"]
