"""What a worker keeps while the queue is away, and when it stops trying."""

from __future__ import annotations

from core.protocol import Artifact, Clip, Job, Progress, Stage
from core.queue import Claim, Queue
from handler.agent import CrashLoop, Holding
from tests.support.pods import types
from tests.support.valkey import Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until

__all__ = ["module_valkey", "queue", "valkey"]

ARTIFACT = Artifact(
    kind="video", media_type="video/mp4", filename="a.mp4", size_bytes=1, sha256="0",
    width=2, height=2, url="j/1/a.mp4",
)  # fmt: skip


def taken(queue: Queue) -> Claim:
    queue.enqueue(Job(workflow="noop", params={}))
    claim = queue.take("w1", block_s=0)
    assert claim
    return claim


def clip(claim: Claim, index: int) -> Clip:
    return Clip(job_id=claim.job.id, index=index, clips=2, artifact=ARTIFACT)


def progress(claim: Claim, step: int) -> Progress:
    return Progress(job_id=claim.job.id, stage=Stage.DENOISING, step=step, steps=9)


def test_clips_wait_for_the_queue_and_only_the_newest_progress_does(
    queue: Queue, valkey: Valkey
) -> None:
    claim = taken(queue)
    holding = Holding(claim, queue, beat_s=60)
    valkey.kill()
    for index in range(2):
        assert holding.tell(clip(claim, index)) == "go"
        assert holding.tell(progress(claim, index)) == "go"
    assert not holding.reached
    valkey.start()
    wait_until(lambda: holding.tell(None) == "go" and holding.reached)
    told = [event for _, event in queue.events(claim.job.id, block_s=0.01)][2:]
    assert [event.type for event in told] == ["clip", "clip", "progress"]
    assert isinstance(told[2], Progress)
    assert told[2].step == 1


def test_a_beat_is_sent_when_it_is_due_and_not_before(queue: Queue) -> None:
    claim = taken(queue)
    holding = Holding(claim, queue, beat_s=60)
    holding.tell(None)
    assert holding.reached
    holding.tell(None)
    assert not holding.reached


def test_a_cancel_and_a_loss_are_seen_with_the_next_event(queue: Queue) -> None:
    claim = taken(queue)
    holding = Holding(claim, queue, beat_s=60)
    queue.cancel(claim.job.id)
    assert holding.tell(progress(claim, 1)) == "cancel"
    assert holding.tell(clip(claim, 0)) == "cancel"
    queue.crash(claim, "gone")
    assert holding.tell(progress(claim, 2)) == "lost"
    assert types(queue, claim.job.id) == ["queued", "started", "clip", "cancelled"]


def test_three_deaths_within_five_minutes_make_a_pause() -> None:
    now = 1000.0
    loop = CrashLoop(clock=lambda: now)
    assert [loop.died(), loop.died()] == [False, False]
    assert loop.pause_s() <= 0
    assert loop.died()
    assert loop.pause_s() == 60
    now += 61
    assert loop.pause_s() <= 0
    assert not loop.died(), "after the pause it counts from zero"


def test_a_finished_job_or_enough_time_forgives_deaths() -> None:
    now = 1000.0
    loop = CrashLoop(clock=lambda: now)
    loop.died()
    loop.died()
    loop.finished()
    assert not loop.died()
    assert not loop.died()
    now += 301
    assert not loop.died()
