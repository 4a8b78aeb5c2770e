"""What only the backend on the queue has to do: outages, other submitters, many jobs, odd events.

There is no worker here: the tests are the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.backends import valkey as backend_module
from controlplane.backends.valkey import ValkeyBackend
from core.errors import BackendUnavailable
from core.protocol import Cancelled, Completed, Job, Progress, Stage, WorkerState
from core.queue import Queue
from core.queue_keys import FEED, WORKERS, events_key, job_key, lane_key, worker_key
from tests.support.backends import Recorder, new_job
from tests.support.valkey import RULES, Valkey, module_valkey, queue, valkey  # noqa: F401
from tests.support.wait import wait_until_async
from tests.support.workflows import Noop


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[ValkeyBackend, Recorder]]:
    backend, recorder = ValkeyBackend(url, RULES), Recorder()
    await backend.start(recorder)
    try:
        await wait_until_async(lambda: recorder.connects)
        yield backend, recorder
    finally:
        await backend.close()


def finish(queue: Queue, *steps: int) -> Job:  # noqa: F811
    """Be the worker for one job; gives it."""
    claim = queue.take("w", block_s=5)
    assert claim
    for step in steps:
        queue.beat(claim, Progress(job_id=claim.job.id, stage=Stage.DENOISING, step=step))
    queue.finish(claim, Completed(job_id=claim.job.id, artifacts=()))
    return claim.job


async def test_following_goes_on_from_a_cursor(valkey: Valkey, queue: Queue) -> None:  # noqa: F811
    job = new_job(Noop)
    queue.enqueue(job)
    await asyncio.to_thread(finish, queue, 1, 2)
    cursors = [cursor for cursor, _ in queue.events(job.id, block_s=0.01)]
    async with connected(valkey.url) as (backend, recorder):
        await backend.follow(job.id, cursors[1])
        await wait_until_async(lambda: "completed" in recorder.types(job.id))
    assert recorder.cursors(job.id) == cursors[2:]


async def test_following_twice_delivers_once(valkey: Valkey, queue: Queue) -> None:  # noqa: F811
    async with connected(valkey.url) as (backend, recorder):
        job = new_job(Noop)
        await backend.submit(job)
        await backend.follow(job.id)
        await asyncio.to_thread(finish, queue)
        await wait_until_async(lambda: "completed" in recorder.types(job.id))
    assert recorder.types(job.id) == ["queued", "started", "completed"]


async def test_a_job_of_another_submitter_is_found(valkey: Valkey, queue: Queue) -> None:  # noqa: F811
    async with connected(valkey.url) as (_, recorder):
        job = new_job(Noop)
        queue.enqueue(job)
        await wait_until_async(lambda: job.id in recorder.found)
        queue.cancel(job.id)


async def test_streams_of_waiting_jobs_are_set_aside_and_come_back(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "_ACTIVE_MAX", 3)
    async with connected(valkey.url) as (backend, recorder):
        jobs = [new_job(Noop) for _ in range(10)]
        for job in jobs:
            await backend.submit(job)
            await wait_until_async(lambda job=job: recorder.types(job.id))
        assert len(backend._active) <= 4
        for _ in jobs:
            await asyncio.to_thread(finish, queue, 1)
        await wait_until_async(lambda: all("completed" in recorder.types(j.id) for j in jobs))
        assert not backend._active
    assert all(recorder.types(j.id) == ["queued", "started", "completed"] for j in jobs)


async def test_events_that_cannot_be_read_are_skipped(valkey: Valkey, queue: Queue) -> None:  # noqa: F811
    async with connected(valkey.url) as (backend, recorder):
        job = new_job(Noop)
        await backend.submit(job)
        for type_, body in (("progress", "{}"), ("newer", "{}"), ("started", "no json")):
            fields = {"job": job.id, "type": type_, "seq": "1", "at": "1", "body": body}
            queue.client.xadd(events_key(job.id), fields)
        await asyncio.to_thread(finish, queue)
        await wait_until_async(lambda: "completed" in recorder.types(job.id))
    assert recorder.types(job.id) == ["queued", "started", "completed"]


async def test_only_workers_that_were_heard_of_lately_are_listed(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
) -> None:
    for name in ("a", "gone"):
        queue.announce(WorkerState(id=name, host="h", pid=1, state="ready"), ttl_s=60)
    queue.client.delete(worker_key("gone"))
    queue.client.zadd(WORKERS, {"odd": 1e12})
    queue.client.set(worker_key("odd"), "{}", ex=60)
    async with connected(valkey.url) as (backend, _):
        assert [worker.id for worker in backend.workers()] == ["a"]


async def test_without_a_server_everything_says_so_and_closing_is_quick(tmp_path: Path) -> None:
    backend = ValkeyBackend(f"unix://{tmp_path}/nothing.sock", RULES)
    await backend.start(Recorder())
    for call in (
        backend.submit(new_job(Noop)),
        backend.cancel("x"),
        backend.job_ids(),
        backend.events("x"),
        backend.queue_lengths(),
    ):
        with pytest.raises(BackendUnavailable):
            await call
    assert not backend.reachable and backend.workers() == ()
    await asyncio.wait_for(backend.close(), 2)


async def test_after_an_outage_following_goes_on_without_a_gap(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = Valkey(tmp_path_factory.mktemp("outage"))
    worker = Queue.connect(server.url, RULES)
    try:
        async with connected(server.url) as (backend, recorder):
            job = new_job(Noop)
            await backend.submit(job)
            server.kill()
            await wait_until_async(lambda: not backend.reachable)
            with pytest.raises(BackendUnavailable):
                await backend.submit(new_job(Noop))
            server.start()
            await wait_until_async(lambda: backend.reachable)
            await asyncio.to_thread(finish, worker, 1)
            await wait_until_async(lambda: "completed" in recorder.types(job.id))
            assert recorder.connects == 2
            assert [e.seq for e in recorder.events(job.id)] == [1, 2, 3, 4]
    finally:
        worker.client.close()
        server.close()


async def test_a_server_without_memory_is_unavailable_for_new_jobs(
    valkey: Valkey,  # noqa: F811
    queue: Queue,  # noqa: F811
) -> None:
    async with connected(valkey.url) as (backend, recorder):
        job = new_job(Noop)
        await backend.submit(job)
        queue.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BackendUnavailable):
                await backend.submit(new_job(Noop))
            await backend.cancel(job.id)
            await wait_until_async(lambda: "cancelled" in recorder.types(job.id))
        finally:
            queue.client.config_set("maxmemory", 512_000_000)
    assert isinstance(recorder.events(job.id)[-1], Cancelled)


async def test_the_layout_of_keys_is_the_queue_s_own(valkey: Valkey, queue: Queue) -> None:  # noqa: F811
    async with connected(valkey.url) as (backend, _):
        job = new_job(Noop, "low")
        await backend.submit(job)
        assert queue.client.exists(job_key(job.id), events_key(job.id), FEED) == 3
        assert queue.client.xlen(lane_key("low")) == (await backend.queue_lengths())["low"] == 1
        await backend.cancel(job.id)
