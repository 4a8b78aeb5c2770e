"""The queue's scripts on a real Valkey: in, take, beat, finish, cancel, retry, crash."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import QueueFull
from core.protocol import (
    Artifact,
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Job,
    Lane,
    Progress,
    Requeued,
    Stage,
    Started,
    WorkerState,
)
from core.queue import Claim, Queue
from core.queue_keys import DEAD, FEED, decode, events_key, job_key, lane_key, worker_key
from tests.support.valkey import RULES, module_valkey, queue, valkey
from tests.support.wait import wait_until

__all__ = ["module_valkey", "queue", "valkey"]

PREVIEW = "data:image/webp;base64,AAAA"


def new_job(lane: Lane = "normal", **params: Any) -> Job:
    return Job(workflow="noop", params=params, lane=lane)


def taken(queue: Queue, job: Job | None = None, worker: str = "w1") -> Claim:
    """A job in the queue, taken by a worker."""
    if job is not None:
        queue.enqueue(job)
    claim = wait_until(lambda: queue.take(worker, block_s=0.05))
    assert claim
    return claim


def done(claim: Claim) -> Completed:
    return Completed(job_id=claim.job.id, artifacts=())


def failed(claim: Claim, *, passes: bool) -> Failed:
    code = "delivery_failed" if passes else "storage_failed"
    return Failed(job_id=claim.job.id, code=code, message="no luck", retryable=True)


def events(queue: Queue, job_id: str) -> list[Event]:
    return [event for _, event in queue.events(job_id, block_s=0.01)]


def types(queue: Queue, job_id: str) -> list[str]:
    return [event.type for event in events(queue, job_id)]


def test_a_job_goes_from_queued_to_completed(queue: Queue) -> None:
    job = new_job(prompt="a")
    assert queue.enqueue(job)
    claim = taken(queue)
    assert claim.job == job.model_copy(update={"attempt": 1})
    assert queue.job(job.id)["status"] == "running"
    assert queue.finish(claim, done(claim)) == "completed"
    assert queue.job(job.id)["status"] == "completed"
    assert types(queue, job.id) == ["queued", "started", "completed"]


def test_events_carry_job_seq_and_the_servers_time(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.beat(claim, Progress(job_id=claim.job.id, stage=Stage.DENOISING, step=1, steps=2))
    told = events(queue, claim.job.id)
    assert [event.seq for event in told] == [1, 2, 3]
    assert {event.job_id for event in told} == {claim.job.id}
    assert [event.at for event in told] == sorted(event.at for event in told)
    assert isinstance(told[1], Started)
    assert (told[1].worker, told[1].attempt) == ("w1", 1)


def test_clips_and_artifacts_survive_the_way(queue: Queue) -> None:
    claim = taken(queue, new_job())
    artifact = Artifact(
        kind="video", media_type="video/mp4", filename="a.mp4", size_bytes=1, sha256="0",
        width=2, height=3, frames=5, fps=8.5, url="j/1/a.mp4",
    )  # fmt: skip
    clip = Clip(job_id=claim.job.id, index=0, clips=2, artifact=artifact)
    assert queue.beat(claim, clip) == "go"
    queue.finish(claim, Completed(job_id=claim.job.id, artifacts=(artifact,), metrics={"s": 1.5}))
    _, _, told, end = events(queue, claim.job.id)
    assert isinstance(told, Clip)
    assert isinstance(end, Completed)
    assert told.artifact == artifact
    assert end.artifacts == (artifact,)
    assert end.metrics == {"s": 1.5}


def test_progress_stays_out_of_the_feed(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.beat(claim, Progress(job_id=claim.job.id, stage=Stage.LOADING))
    queue.finish(claim, done(claim))
    feed = [fields["type"] for _, fields in queue.client.xrange(FEED)]
    assert feed == ["queued", "started", "completed"]


def test_only_the_newest_preview_is_kept(queue: Queue) -> None:
    claim = taken(queue, new_job())
    for step in range(5):
        told = Progress(job_id=claim.job.id, stage=Stage.DENOISING, step=step, preview=PREVIEW)
        queue.beat(claim, told)
    pictures = [event for event in events(queue, claim.job.id) if isinstance(event, Progress)]
    assert [(event.step, event.preview) for event in pictures] == [(4, PREVIEW)]


def test_a_reader_goes_on_from_its_cursor(queue: Queue) -> None:
    claim = taken(queue, new_job())
    (_, _), (cursor, _) = queue.events(claim.job.id, block_s=0.01)
    queue.finish(claim, done(claim))
    assert [event.type for _, event in queue.events(claim.job.id, cursor)] == ["completed"]


def test_a_late_reader_gets_all_events(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.finish(claim, done(claim))
    assert types(queue, claim.job.id) == ["queued", "started", "completed"]


def test_an_event_of_a_newer_version_is_skipped() -> None:
    entry = ("1-0", {"job": "j", "type": "dreamt", "seq": "1", "at": "1", "body": '{"of":"sheep"}'})
    assert decode(entry) == ("1-0", None)


def test_high_goes_before_normal_and_low(queue: Queue) -> None:
    for lane in ("low", "normal", "high"):
        queue.enqueue(new_job(lane))
    assert [taken(queue).job.lane for _ in range(3)] == ["high", "normal", "low"]


def test_a_lane_is_first_in_first_out(queue: Queue) -> None:
    jobs = [new_job() for _ in range(5)]
    for job in jobs:
        queue.enqueue(job)
    assert [taken(queue).job.id for _ in jobs] == [job.id for job in jobs]


def test_the_same_job_twice_is_one_job(queue: Queue) -> None:
    job = new_job()
    assert queue.enqueue(job)
    assert not queue.enqueue(job)
    assert queue.client.xlen(lane_key("normal")) == 1


def test_an_ended_job_is_not_run_again_when_it_is_put_in_again(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.finish(claim, done(claim))
    assert not queue.enqueue(claim.job)
    assert queue.take("w1", block_s=0) is None


def test_a_full_lane_refuses_and_says_how_much_it_holds(queue: Queue) -> None:
    for _ in range(RULES.lane_limit):
        queue.enqueue(new_job())
    with pytest.raises(QueueFull, match="normal lane holds 50 jobs"):
        queue.enqueue(new_job())
    assert queue.enqueue(new_job("high"))


def test_a_job_counts_on_from_its_attempt_when_the_queue_is_rebuilt(queue: Queue) -> None:
    old = taken(queue, new_job())
    queue.client.flushall()
    queue.enqueue(old.job)
    new = taken(queue, worker="w2")
    assert new.job.attempt == 2
    assert queue.beat(old) == "lost"
    assert queue.beat(new) == "go"


def test_take_works_again_when_the_server_lost_its_data(queue: Queue) -> None:
    queue.client.flushall()
    assert queue.take("w1", block_s=0) is None
    assert taken(queue, new_job()).job.attempt == 1


def test_a_new_job_ends_the_wait_of_an_idle_worker(queue: Queue) -> None:
    assert queue.take("w1", block_s=0) is None
    claim = taken(queue, new_job())
    assert claim.crashes == 0


# --- ends ------------------------------------------------------------------------------------


def test_a_finish_counts_once(queue: Queue) -> None:
    claim = taken(queue, new_job())
    assert queue.finish(claim, done(claim)) == "completed"
    assert queue.finish(claim, done(claim)) == "refused"
    assert queue.beat(claim) == "lost"
    assert types(queue, claim.job.id).count("completed") == 1


def test_keys_of_an_ended_job_expire_after_thirty_days(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.finish(claim, done(claim))
    for key in (job_key(claim.job.id), events_key(claim.job.id)):
        assert 2_591_000 < queue.client.ttl(key) <= 2_592_000
    assert queue.client.xlen(lane_key("normal")) == 0


def test_a_failure_that_will_not_pass_ends_the_job_at_once(queue: Queue) -> None:
    claim = taken(queue, new_job())
    assert queue.finish(claim, failed(claim, passes=False)) == "failed"
    assert types(queue, claim.job.id) == ["queued", "started", "failed"]


def test_a_failure_that_may_pass_is_retried_up_to_a_limit(queue: Queue) -> None:
    claim = taken(queue, new_job())
    assert queue.finish(claim, failed(claim, passes=True)) == "queued"
    assert queue.take("w1", block_s=0) is None, "it waits before it runs again"
    for _ in range(RULES.max_retries):
        claim = taken(queue)
        outcome = queue.finish(claim, failed(claim, passes=True))
    assert outcome == "failed"
    assert claim.job.attempt == 3
    assert types(queue, claim.job.id) == [
        "queued", "started", "requeued", "started", "requeued", "started", "failed",
    ]  # fmt: skip
    assert queue.job(claim.job.id)["crashes"] == "0"


def test_waits_before_retries_double_up_to_five_minutes() -> None:
    assert [RULES.delay_ms(retries) for retries in (0, 1, 2, 20)] == [100, 200, 400, 300_000]


def test_the_third_crash_buries_the_job_and_ends_it_as_failed(queue: Queue) -> None:
    queue.enqueue(new_job())
    outcomes = []
    for _ in range(3):
        claim = taken(queue)
        outcomes.append(queue.crash(claim, "signal 9"))
    assert outcomes == ["queued", "queued", "failed"]
    end = events(queue, claim.job.id)[-1]
    assert isinstance(end, Failed)
    assert end.code == "worker_lost"
    assert "3 times" in end.message
    assert "signal 9" in end.message
    assert [fields["job"] for _, fields in queue.client.xrange(DEAD)] == [claim.job.id]


def test_a_job_given_back_is_not_blamed(queue: Queue) -> None:
    claim = taken(queue, new_job())
    assert queue.requeue(claim, "the worker stops") == "queued"
    again = taken(queue)
    assert (again.job.attempt, again.crashes, again.retries) == (2, 0, 0)
    told = events(queue, claim.job.id)[2]
    assert isinstance(told, Requeued)
    assert told.reason == "the worker stops"
    assert queue.finish(claim, done(claim)) == "refused"


# --- cancel ----------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once(queue: Queue) -> None:
    job = new_job()
    queue.enqueue(job)
    assert queue.cancel(job.id) == "cancelled"
    assert queue.take("w1", block_s=0) is None
    assert types(queue, job.id) == ["queued", "cancelled"]


def test_a_job_that_waits_for_a_retry_is_cancelled_at_once(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.finish(claim, failed(claim, passes=True))
    assert queue.cancel(claim.job.id) == "cancelled"
    assert queue.job(claim.job.id)["status"] == "cancelled"


def test_the_owner_of_a_running_job_is_told_by_its_next_beat(queue: Queue) -> None:
    claim = taken(queue, new_job())
    assert queue.cancel(claim.job.id) == "cancelling"
    assert queue.beat(claim) == "cancel"
    assert queue.finish(claim, Cancelled(job_id=claim.job.id)) == "cancelled"
    assert queue.cancel(claim.job.id) == "cancelled"


def test_a_cancelled_job_is_not_run_again_after_a_crash(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.cancel(claim.job.id)
    assert queue.crash(claim, "signal 9") == "cancelled"


def test_a_job_that_ended_or_never_was_is_not_cancelled(queue: Queue) -> None:
    claim = taken(queue, new_job())
    queue.finish(claim, done(claim))
    assert queue.cancel(claim.job.id) == "completed"
    assert queue.cancel("unknown") == "missing"


# --- workers ---------------------------------------------------------------------------------


def test_a_worker_is_known_until_it_is_silent(queue: Queue) -> None:
    queue.announce(WorkerState(id="w1", host="h", pid=1, state="ready"), ttl_s=60)
    queue.announce(WorkerState(id="w2", host="h", pid=2, state="busy", job_id="j"), ttl_s=0.05)
    wait_until(lambda: [worker.id for worker in queue.workers()] == ["w1"])
    assert 0 < queue.client.ttl(worker_key("w1")) <= 60
