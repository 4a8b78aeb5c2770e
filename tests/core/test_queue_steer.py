"""Plans in the queue: who may change them, who hears of it, and what a reader finds later."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from core.protocol import Artifact, Cancelled, Clip, Job, Plan, Progress, Stage, Steered
from core.queue import Claim, Notice, Queue
from core.queue_keys import CONTROL, events_key, job_key
from tests.support.valkey import RULES, Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until

__all__ = ["module_valkey", "queue", "valkey"]

FIRST = Plan(prompts=("a", "b"), num_clips=2)
NEXT = FIRST.model_copy(update={"prompts": ("a", "c"), "rev": 1})
ENDLESS = FIRST.model_copy(update={"num_clips": None, "rev": 2})


def put(queue: Queue, plan: Plan | None = FIRST) -> str:
    job = Job(workflow="clips", params={}, plan=plan)
    queue.enqueue(job)
    return job.id


def take(queue: Queue) -> Claim:
    claim = wait_until(lambda: queue.take("w1", block_s=0.05))
    assert claim
    return claim


@pytest.fixture
def heard(queue: Queue, valkey: Valkey) -> Iterator[list[Notice]]:
    """What a listener hears from now on."""
    notices: list[Notice] = []
    other = Queue.connect(valkey.url, RULES)

    def listen() -> None:
        for notice in other.notices(30):
            if notice.job_id == "stop":
                return
            notices.append(notice)

    thread = threading.Thread(target=listen)
    thread.start()
    wait_until(lambda: queue.client.pubsub_channels(CONTROL))
    yield notices
    queue.client.publish(CONTROL, "cancel stop")
    thread.join()
    other.client.close()


def test_a_waiting_job_is_taken_with_its_newest_plan(queue: Queue) -> None:
    job_id = put(queue)
    assert queue.plan(job_id) is None
    assert queue.steer(job_id, NEXT, 0) == "steered"
    assert queue.steer(job_id, ENDLESS, 1) == "steered"
    assert queue.plan(job_id) == ENDLESS
    assert take(queue).job.plan == ENDLESS


def test_a_change_is_told_in_the_jobs_stream(queue: Queue) -> None:
    job_id = put(queue)
    queue.steer(job_id, ENDLESS, 0)
    (_, _), (_, told) = queue.events(job_id, block_s=0.01)
    assert isinstance(told, Steered)
    assert told.plan == ENDLESS


def test_only_who_knows_the_plan_may_change_it(queue: Queue) -> None:
    job_id = put(queue)
    queue.steer(job_id, NEXT, 0)
    late = NEXT.model_copy(update={"prompts": ("x",)})
    assert queue.steer(job_id, late, 0) == "stale"
    assert queue.plan(job_id) == NEXT


def test_the_same_change_again_counts_once(queue: Queue) -> None:
    """Its reply was lost, so it is sent again."""
    job_id = put(queue)
    assert [queue.steer(job_id, NEXT, 0) for _ in range(2)] == ["steered", "steered"]
    assert [event.type for _, event in queue.events(job_id, block_s=0.01)] == ["queued", "steered"]


def test_a_job_without_a_plan_an_ended_and_an_unknown_one_are_not_changed(queue: Queue) -> None:
    assert queue.steer(put(queue, None), NEXT, 0) == "stale"
    claim = take(queue)
    queue.finish(claim, Cancelled(job_id=claim.job.id))
    assert queue.steer(claim.job.id, NEXT, 0) == "cancelled"
    assert queue.steer("nobody", NEXT, 0) == "missing"


def test_a_job_that_is_put_in_again_with_a_changed_plan_goes_on_from_its_rev(queue: Queue) -> None:
    job_id = put(queue, NEXT)
    assert queue.steer(job_id, ENDLESS, 0) == "stale"
    assert queue.steer(job_id, ENDLESS, 1) == "steered"


def test_a_redelivered_job_comes_with_its_newest_plan(queue: Queue) -> None:
    put(queue)
    claim = take(queue)
    queue.steer(claim.job.id, NEXT, 0)
    queue.crash(claim, "signal 9")
    again = take(queue)
    assert (again.job.id, again.job.attempt, again.job.plan) == (claim.job.id, 2, NEXT)


def test_the_owner_hears_of_it_at_once(queue: Queue, heard: list[Notice]) -> None:
    waiting = put(queue)
    queue.steer(waiting, NEXT, 0)
    job_id = take(queue).job.id
    queue.steer(job_id, ENDLESS, 1)
    queue.cancel(job_id)
    wait_until(lambda: len(heard) == 2)
    assert heard == [
        Notice(kind="steer", job_id=job_id, rev=2),
        Notice(kind="cancel", job_id=job_id),
    ]


def test_a_notice_that_was_missed_comes_again_with_each_beat_until_it_is_known(
    queue: Queue, heard: list[Notice]
) -> None:
    put(queue)
    claim = take(queue)
    queue.beat(claim)
    queue.client.hset(job_key(claim.job.id), mapping={"plan": "x", "plan_rev": 1})
    assert queue.beat(claim) == "go"
    assert queue.beat(claim, Progress(job_id=claim.job.id, stage=Stage.LOADING)) == "go"
    assert queue.beat(claim, plan=NEXT) == "go"
    queue.cancel(claim.job.id)
    wait_until(lambda: heard and heard[-1].kind == "cancel")
    assert [notice.kind for notice in heard] == ["steer", "steer", "cancel"]


def test_something_else_on_the_channel_is_no_notice(queue: Queue, heard: list[Notice]) -> None:
    queue.client.publish(CONTROL, "dance j 1")
    queue.client.publish(CONTROL, "cancel j")
    wait_until(lambda: heard)
    assert heard == [Notice(kind="cancel", job_id="j")]


def test_much_progress_takes_no_clip_and_no_change_out_of_the_stream(queue: Queue) -> None:
    """A control plane that was away for long must find every clip."""
    put(queue)
    claim = take(queue)
    queue.steer(claim.job.id, NEXT, 0)
    artifact = Artifact(
        kind="video", media_type="video/mp4", filename="a.mp4", size_bytes=1, sha256="0",
        width=2, height=2, url="j/clips/a.mp4",
    )  # fmt: skip
    for index in range(5):
        queue.beat(claim, Clip(job_id=claim.job.id, index=index, artifact=artifact))
        for step in range(600):
            queue.beat(claim, Progress(job_id=claim.job.id, stage=Stage.DENOISING, step=step))
    assert queue.client.xlen(events_key(claim.job.id)) < 1200
    told = [event for _, event in queue.events(claim.job.id, block_s=0.01)]
    assert [event.index for event in told if isinstance(event, Clip)] == [0, 1, 2, 3, 4]
    assert [event.type for event in told[:3]] == ["queued", "started", "steered"]
    steps = [event.step for event in told if isinstance(event, Progress)]
    assert steps[-100:] == list(range(500, 600))
