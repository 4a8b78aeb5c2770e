"""The tutorial: submit, follow, cancel, fail, and what happens when a process dies.

Read from top to bottom. `jobs` is what the page, the REST routes and the command line call.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.jobs import Jobs
from controlplane.records import JobRecord
from core.errors import InvalidParams, UnknownWorkflow
from core.protocol import JobStatus


async def ended(jobs: Jobs, job_id: str) -> JobRecord:
    """The record after its terminal event."""
    async for record in jobs.follow(job_id):
        last = record
    return last


async def test_1_a_job_is_submitted_and_completes(jobs: Jobs) -> None:
    record = await jobs.submit("noop", {"prompt": "hello"})
    assert record.status is JobStatus.QUEUED
    assert (await ended(jobs, record.id)).status is JobStatus.COMPLETED


async def test_2_a_seed_that_is_left_out_is_chosen_at_submit(jobs: Jobs) -> None:
    """So a second attempt, on whatever worker, makes the same video."""
    record = await jobs.submit("noop", {})
    assert isinstance(record.params["seed"], int)


async def test_3_following_a_job_shows_its_progress(jobs: Jobs) -> None:
    record = await jobs.submit("sleeper", {"seconds": 0.6, "steps": 3})
    fractions = [state.progress.fraction async for state in jobs.follow(record.id)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


async def test_4_outputs_are_artifacts_with_size_and_hash(jobs: Jobs, tmp_path: Path) -> None:
    record = await jobs.submit("sleeper", {})
    video, poster = (await ended(jobs, record.id)).artifacts
    assert (video.kind, video.frames, poster.kind) == ("video", 5, "image")
    stored = tmp_path / "outputs" / video.url.removeprefix("/outputs/")
    assert stored.stat().st_size == video.size_bytes


async def test_5_a_job_can_be_cancelled_at_any_time_and_twice(jobs: Jobs) -> None:
    record = await jobs.submit("sleeper", {"seconds": 60, "steps": 600})
    async for state in jobs.follow(record.id):
        if state.status is JobStatus.RUNNING:
            await jobs.cancel(record.id)
            await jobs.cancel(record.id)
    assert jobs.get(record.id).status is JobStatus.CANCELLED


async def test_6_bad_values_are_refused_before_anything_is_queued(jobs: Jobs) -> None:
    with pytest.raises(InvalidParams, match="steps=0"):
        await jobs.submit("sleeper", {"steps": 0})
    with pytest.raises(UnknownWorkflow, match="'dance' is not one of"):
        await jobs.submit("dance", {})
    assert jobs.page().jobs == ()


async def test_7_an_error_ends_the_job_with_a_code_and_words(jobs: Jobs) -> None:
    record = await ended(jobs, (await jobs.submit("raiser", {"prompt": "out_of_memory"})).id)
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.message) == ("out_of_memory", "too little memory")


async def test_8_a_job_whose_process_dies_runs_again(jobs: Jobs, tmp_path: Path) -> None:
    record = await jobs.submit("crasher", {"prompt": str(tmp_path / "died-once")})
    last = await ended(jobs, record.id)
    assert (last.status, last.attempt) == (JobStatus.COMPLETED, 2)


async def test_9_a_job_that_kills_three_processes_is_given_up(jobs: Jobs) -> None:
    record = await ended(jobs, (await jobs.submit("crasher", {})).id)
    assert record.error is not None
    assert record.error.code == "worker_lost"
