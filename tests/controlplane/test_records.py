"""How events change a record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.records import (
    JobRecord,
    absolute,
    apply,
    new_record,
    shown,
    stored_record,
    to_store,
)
from core.protocol import (
    Artifact,
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Job,
    JobStatus,
    Plan,
    Progress,
    Queued,
    Requeued,
    Stage,
    Started,
    Steered,
)

VIDEO = Artifact(
    kind="video",
    media_type="video/mp4",
    filename="a.mp4",
    size_bytes=1,
    sha256="0" * 64,
    width=32,
    height=32,
    frames=5,
    url="job/1/a.mp4",
)


def after(*events: Event) -> JobRecord:
    record = new_record(Job(id="j", workflow="noop", params={}))
    for seq, event in enumerate(events, start=1):
        record = apply(record, event.model_copy(update={"seq": seq}))
    return record


STARTED = Started(job_id="j", worker="w", attempt=1)
HALF = Progress(job_id="j", stage=Stage.DENOISING, step=5, steps=10, fraction=0.5, preview="data:x")


def test_a_started_job_runs_on_its_worker() -> None:
    record = after(Queued(job_id="j"), STARTED)
    assert record.status is JobStatus.RUNNING and record.worker == "w" and record.attempt == 1
    assert record.seq == 2 and record.started_at


def test_progress_keeps_the_last_preview() -> None:
    bare = HALF.model_copy(update={"preview": None, "step": 6})
    record = after(STARTED, HALF, bare)
    assert record.progress.step == 6 and record.preview == "data:x"


def test_a_requeued_job_waits_again_without_progress() -> None:
    record = after(STARTED, HALF, Requeued(job_id="j", reason="lost"))
    assert record.status is JobStatus.QUEUED and record.worker is None
    assert record.progress.fraction == 0 and record.preview is None


def clip(index: int, name: str = "", prompt: str = "p") -> Clip:
    """A clip, in another file for another `name`."""
    artifact = VIDEO.model_copy(update={"url": f"job/clips/{index}{name}.mp4"})
    return Clip(job_id="j", index=index, clips=3, artifact=artifact, prompt=prompt, init_bytes=9)


def test_clips_are_no_outputs_but_can_be_watched() -> None:
    record = after(STARTED, clip(0), clip(1))
    assert record.artifacts == ()
    assert [c.artifact.url for c in record.clips] == [
        "/outputs/job/clips/0.mp4", "/outputs/job/clips/1.mp4",
    ]  # fmt: skip


def test_clips_outlive_their_worker() -> None:
    again = STARTED.model_copy(update={"attempt": 2})
    record = after(STARTED, clip(0), clip(1), Requeued(job_id="j", reason=""), again)
    assert [c.index for c in record.clips] == [0, 1]
    told_again = after(STARTED, clip(0), clip(1), clip(0))
    assert [c.index for c in told_again.clips] == [0, 1]


def test_a_clip_that_is_made_again_replaces_all_after_it() -> None:
    record = after(STARTED, clip(0), clip(1), clip(2), clip(1, "new"))
    assert len(record.clips) == 2
    assert record.clips[1].artifact.url.endswith("1new.mp4")


def test_the_store_keeps_a_prompt_once() -> None:
    record = after(STARTED, clip(0), clip(1), clip(2, prompt="q"))
    raw = to_store(record)
    assert [c.get("prompt") for c in raw["clips"]] == ["p", None, "q"]
    assert [c.prompt for c in stored_record(raw).clips] == ["p", "p", "q"]


def test_an_older_plan_does_not_replace_a_newer_one() -> None:
    plans = [Plan(prompts=(str(rev),), num_clips=1, rev=rev) for rev in (1, 2)]
    told = [Steered(job_id="j", plan=plan) for plan in (plans[1], plans[0])]
    assert after(STARTED, *told).plan == plans[1]


def test_a_completed_job_has_its_outputs_and_no_preview() -> None:
    record = after(STARTED, HALF, Completed(job_id="j", artifacts=(VIDEO,), metrics={"a": 1}))
    assert record.finished and record.progress.fraction == 1.0 and record.preview is None
    assert record.artifacts[0].url == "/outputs/job/1/a.mp4" and record.metrics == {"a": 1}


@pytest.mark.parametrize("late", [STARTED, HALF, Failed(job_id="j", code="x", message="x")])
def test_an_ended_job_stays_as_it_ended(late: Event) -> None:
    ended = after(STARTED, Cancelled(job_id="j", at=datetime.now(UTC)))
    assert apply(ended, late) is ended


def test_a_failed_job_names_the_field_at_fault() -> None:
    record = after(Failed(job_id="j", code="input_rejected", message="bad", field="input_image"))
    assert record.error and record.error.field == "input_image"


def test_an_address_elsewhere_stays_as_it_is() -> None:
    elsewhere = VIDEO.model_copy(update={"url": "https://bucket.example/a.mp4"})
    assert absolute(elsewhere) is elsewhere


def test_a_shown_event_has_addresses_that_a_browser_can_fetch() -> None:
    event = shown(Completed(job_id="j", artifacts=(VIDEO,)))
    assert event["artifacts"][0]["url"] == "/outputs/job/1/a.mp4" and event["type"] == "completed"


def test_a_job_that_is_put_in_again_counts_its_attempts_on() -> None:
    """Each attempt's outputs have a folder of their own."""
    job = after(Queued(job_id="j"), STARTED.model_copy(update={"attempt": 2})).job()
    assert job.attempt == 2
    fresh = new_record(job)
    assert fresh.attempt == 2 and fresh.status is JobStatus.QUEUED
