"""Plans changed by several at once or while the queue has lost the job; and what is left of them.

There is no worker here: the tests are the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.backends.valkey import ValkeyBackend
from controlplane.jobs import Jobs
from controlplane.records import ClipRecord, JobRecord, new_record
from controlplane.steering import Continuation, PlanChange, continued, difference, rest, steer
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from core.errors import Conflict, InvalidParams
from core.protocol import Artifact, Clip, Job, Plan, Progress, Stage, now
from core.queue import Claim, Queue
from core.queue_keys import Rules
from core.workflows import register
from tests.support.loras import no_loras
from tests.support.valkey import RULES, Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until, wait_until_async
from tests.support.workflows import ALL, Clips

__all__ = ["module_valkey", "queue", "valkey"]

for path in ALL.split(","):
    register(path)

PLAN = Plan(prompts=("a", "b", "c"), num_clips=4)
FINISH = PlanChange(rev=0, finish=True)
OTHERS = PlanChange(rev=0, prompts=["a", "x"])


def artifact(index: int) -> Artifact:
    return Artifact(
        kind="video", media_type="video/mp4", filename=f"{index}.mp4", size_bytes=1, sha256="0",
        width=2, height=2, url=f"j/clips/{index}.mp4",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(url: str, folder: Path, rules: Rules = RULES) -> AsyncIterator[Jobs]:
    """One life of a control plane."""
    backend = ValkeyBackend(url, rules)
    uploads = Uploads(folder / "uploads", image_max_bytes=1_000_000, video_max_bytes=1_000_000)
    store = JobStore(folder / "jobs.json")
    jobs = Jobs(backend=backend, store=store, uploads=uploads, loras=no_loras(folder), retry_s=0.3)
    await jobs.start()
    try:
        await wait_until_async(lambda: backend.reachable)
        yield jobs
    finally:
        await jobs.close()


def take(queue: Queue) -> Claim:
    claim = wait_until(lambda: queue.take("w", block_s=0.1))
    assert claim
    return claim


async def submitted(jobs: Jobs) -> JobRecord:
    return await jobs.submit("clips", {"prompts": ["a", "b"], "num_clips": 2})


async def test_of_two_that_steer_in_the_same_moment_one_is_refused(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await submitted(jobs)
        first, second = await asyncio.gather(
            steer(jobs, record.id, FINISH), steer(jobs, record.id, OTHERS), return_exceptions=True
        )
        assert isinstance(first, JobRecord) and first.plan and first.plan.finish
        assert isinstance(second, Conflict) and "it shall finish" in second.message
        claim = await asyncio.to_thread(take, queue)
        assert claim.job.plan == first.plan
        queue.requeue(claim, "")
        await jobs.cancel(record.id)


async def test_two_control_planes_on_one_queue_do_not_overwrite_each_other(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    """The other one's change may not have been heard of yet."""
    async with (
        running(valkey.url, tmp_path / "a") as ours,
        running(valkey.url, tmp_path / "b") as b,
    ):
        record = await submitted(ours)
        await wait_until_async(b.unfinished)
        told = await asyncio.gather(
            steer(ours, record.id, FINISH), steer(b, record.id, OTHERS), return_exceptions=True
        )
        assert [isinstance(reply, Conflict) for reply in told].count(True) == 1
        await wait_until_async(lambda: ours.get(record.id).plan == b.get(record.id).plan)
        await ours.cancel(record.id)
        await wait_until_async(lambda: not b.unfinished())


async def test_who_was_answered_can_send_the_next_change_at_once(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await submitted(jobs)
        for rev in range(20):
            change = PlanChange(rev=rev, num_clips=100 + rev)
            plan = (await steer(jobs, record.id, change)).plan
            assert plan and (plan.rev, plan.num_clips) == (rev + 1, 100 + rev)
        await jobs.cancel(record.id)


async def test_clips_and_plan_outlive_a_queue_that_lost_its_data(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await submitted(jobs)
        claim = await asyncio.to_thread(take, queue)
        queue.beat(claim, Clip(job_id=record.id, index=0, artifact=artifact(0), prompt="a"))
        await wait_until_async(lambda: jobs.get(record.id).clips)
        await steer(jobs, record.id, OTHERS)
    queue.client.flushall()
    async with running(valkey.url, tmp_path) as jobs:
        claim = await asyncio.to_thread(take, queue)
        assert claim.job.plan and claim.job.plan.prompts == ("a", "x")
        assert [clip.prompt for clip in jobs.get(record.id).clips] == ["a"]
        steered = await steer(jobs, record.id, PlanChange(rev=1, finish=True))
        assert queue.plan(record.id) == steered.plan
        await jobs.cancel(record.id)
        queue.requeue(claim, "")


async def test_a_lost_job_that_waits_for_room_is_steered_here_and_goes_in_so(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        first, second = await submitted(jobs), await submitted(jobs)
    queue.client.flushall()
    async with running(valkey.url, tmp_path, replace(RULES, lane_limit=1)) as jobs:
        await wait_until_async(lambda: queue.job(first.id))
        assert not queue.job(second.id)
        steered = await steer(jobs, second.id, OTHERS)
        assert steered.plan and steered.plan.rev == 1
        with pytest.raises(Conflict):
            await steer(jobs, second.id, FINISH)
        await jobs.cancel(first.id)
        claim = await asyncio.to_thread(take, queue)
        assert claim.job.id == second.id and claim.job.plan == steered.plan
        queue.requeue(claim, "")
        await jobs.cancel(second.id)


async def test_the_clip_in_the_making_is_free_again_when_its_worker_is_lost(
    valkey: Valkey, queue: Queue, tmp_path: Path
) -> None:
    async with running(valkey.url, tmp_path) as jobs:
        record = await submitted(jobs)
        claim = await asyncio.to_thread(take, queue)
        queue.beat(claim, Progress(job_id=record.id, stage=Stage.DENOISING, clip=0))
        await wait_until_async(lambda: jobs.get(record.id).progress.clip == 0)
        change = PlanChange(rev=0, prompts=["x", "b"])
        with pytest.raises(InvalidParams, match="clip 0 is being made"):
            await steer(jobs, record.id, change)
        queue.requeue(claim, "")
        await wait_until_async(lambda: jobs.get(record.id).progress.clip is None)
        assert (await steer(jobs, record.id, change)).plan
        await jobs.cancel(record.id)


# --- what is left of a plan ----------------------------------------------------------------------


def a_record(plan: Plan, made: str) -> JobRecord:
    """A job of the fake clip workflow; `made` has a letter a clip."""
    params = {"model": "fake", "seed": 7, "prompts": list(plan.prompts), "size": 64}
    record = new_record(Job(id="j", workflow="clips", params=params, plan=plan))
    clips = tuple(
        ClipRecord(index=index, prompt=prompt, artifact=artifact(index), at=now())
        for index, prompt in enumerate(made)
    )
    return record.model_copy(update={"clips": clips})


@pytest.mark.parametrize(
    ("made", "after", "prompts", "num_clips"),
    [
        ("abcc", -1, ("a", "b", "c"), 4),
        ("abcc", 0, ("b", "c"), 3),
        ("aXcc", 0, ("X", "c"), 3),
        ("abcc", 2, ("c",), 1),
        ("abcc", 3, ("c",), 4),
    ],
)
def test_a_continuation_makes_what_the_plan_still_wants(
    made: str, after: int, prompts: tuple[str, ...], num_clips: int
) -> None:
    left = rest(a_record(PLAN, made), PLAN, after)
    assert left == Plan(prompts=prompts, num_clips=num_clips, first=after + 1)


def test_clips_of_an_earlier_job_are_made_again_from_their_own_prompts() -> None:
    plan = Plan(prompts=("d", "e"), num_clips=2, first=2)
    assert rest(a_record(plan, "abde"), plan, 0).prompts == ("b", "d", "e")
    wish = Continuation(after=-1)
    with pytest.raises(InvalidParams, match="clip 0 of job j does not exist: it has none yet"):
        continued(a_record(plan, ""), Clips(), wish)


def test_an_endless_job_goes_on_endlessly() -> None:
    plan = Plan(prompts=("a", "b"), num_clips=None)
    params = continued(a_record(plan, "abb"), Clips(), Continuation(after=2))
    assert params["endless"] and params["prompts"] == ("b",)


def test_a_continuation_has_the_jobs_params_but_its_seed() -> None:
    wish = Continuation(after=1, params={"steps": 3})
    params = continued(a_record(PLAN, "ab"), Clips(), wish)
    assert params["go_on_from"] == "clip:j/1" and params["size"] == 64 and params["steps"] == 3
    assert "seed" not in params
    assert continued(a_record(PLAN, "ab"), Clips(), Continuation(after=1, params={"seed": 3}))[
        "seed"
    ] == 3  # fmt: skip


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"prompts": ("a", "x", "c")}, "another prompt for clip 1"),
        ({"prompts": ("a",)}, "another prompt for clip 1, 2"),
        ({"prompts": ("a", *"uvwxyz")}, "other prompts from clip 1 on"),
        ({"num_clips": None}, "num_clips is endless, was 4"),
        ({"finish": True}, "it shall finish"),
        ({"finish": True, "num_clips": 5}, "num_clips is 5, was 4, it shall finish"),
        ({}, "nothing that differs"),
    ],
)
def test_a_difference_is_told_in_words(update: dict[str, object], words: str) -> None:
    assert difference(PLAN, PLAN.model_copy(update=update)) == words
