"""JobRecord: what is known about a job, and how each event changes it.

record = apply(record, event)        pure; jobs.py keeps the records, REST and WebSocket show them
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from core.protocol import (
    TERMINAL,
    Artifact,
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Job,
    JobStatus,
    Lane,
    Plan,
    Progress,
    Queued,
    Requeued,
    Stage,
    Started,
    Steered,
)

OUTPUTS: Final = "/outputs/"
"""Where the control plane serves the outputs folder."""
_MEMORY_ONLY: Final = {"progress", "preview"}


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobProgress(_Shown):
    """Where a running job is; `fraction` is of the whole job, 0 to 1."""

    fraction: float = 0.0
    stage: Stage | None = None
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    clip: int | None = None
    """Which clip is being made, counted over the whole video; None for a job without clips."""


class ClipRecord(_Shown):
    """A clip that is stored and can be watched. `index` counts over the whole video."""

    index: int
    prompt: str = ""
    seed: int | None = None
    artifact: Artifact
    init_bytes: int = 0
    """So many bytes at the file's start are the initialization segment (`EXT-X-MAP`)."""
    at: AwareDatetime


class JobError(_Shown):
    """Why a job failed, in words for the user."""

    code: str
    message: str
    retryable: bool = False
    field: str | None = None


class JobRecord(_Shown):
    """A job as REST and WebSocket show it. Progress and preview are kept in memory only."""

    id: str
    workflow: str
    params: dict[str, Any]
    lane: Lane = "normal"
    status: JobStatus = JobStatus.QUEUED
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    attempt: int = 0
    worker: str | None = None
    progress: JobProgress = JobProgress()
    preview: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    metrics: dict[str, Any] = {}
    error: JobError | None = None
    cancel_requested: bool = False
    plan: Plan | None = None
    """The clips that it makes, as wanted now; None for a workflow that makes none."""
    clips: tuple[ClipRecord, ...] = ()
    """Those that are there, from the first one of the video on. Lists of jobs leave them out."""
    seq: int = 0

    @property
    def finished(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in TERMINAL

    @property
    def next_clip(self) -> int:
        """The first clip that is neither made nor being made: from here on it can be steered."""
        made = self.clips[-1].index + 1 if self.clips else 0
        begun = 0 if self.progress.clip is None else self.progress.clip + 1
        return max(made, begun, self.plan.first if self.plan else 0)

    def job(self) -> Job:
        """The job to submit; its attempts count on, because each one's outputs have a folder."""
        return Job(
            id=self.id,
            workflow=self.workflow,
            params=self.params,
            lane=self.lane,
            created_at=self.created_at,
            attempt=self.attempt,
            plan=self.plan,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Some records, newest first; `next` is the cursor of the page after it."""

    jobs: tuple[JobRecord, ...]
    next: str | None


def new_record(job: Job) -> JobRecord:
    """The record of a job that was just submitted, or that others have put in."""
    return JobRecord(
        id=job.id,
        workflow=job.workflow,
        params=job.params,
        lane=job.lane,
        created_at=job.created_at,
        attempt=job.attempt,
        plan=job.plan,
    )


def restarted(record: JobRecord) -> JobRecord:
    """The record of a job that has to be taken again: it keeps its clips and goes on from them."""
    return new_record(record.job()).model_copy(update={"clips": record.clips})


def to_store(record: JobRecord) -> dict[str, Any]:
    """A record as the store keeps it: without progress, and a clip's prompt only where it is new.

    An endless job has hundreds of clips of one prompt, and the store writes all records each time.
    """
    raw = record.model_dump(mode="json", exclude=_MEMORY_ONLY)
    before = None
    for clip in raw["clips"]:
        if clip["prompt"] == before:
            del clip["prompt"]
        else:
            before = clip["prompt"]
    return raw


def stored_record(raw: Mapping[str, Any]) -> JobRecord:
    """A record as the store has it. Its progress is known only where the job completed.

    Raises:
        ValidationError: it is not a record.
    """
    clips = []
    prompt = ""
    for clip in raw.get("clips", ()):
        prompt = clip.get("prompt", prompt)
        clips.append({**clip, "prompt": prompt})
    record = JobRecord.model_validate({**raw, "clips": clips})
    if record.status is JobStatus.COMPLETED:
        return record.model_copy(update={"progress": JobProgress(fraction=1.0)})
    return record


def apply(record: JobRecord, event: Event) -> JobRecord:
    """The record after an event. An ended job stays as it ended."""
    if record.finished:
        return record
    return record.model_copy(update={"seq": event.seq, **_changes(record, event)})


def _changes(record: JobRecord, event: Event) -> dict[str, Any]:
    match event:
        case Progress():
            changes = _progress(record, event)
        case Started():
            changes = _started(event)
        case Requeued():
            changes = {"status": JobStatus.QUEUED, **_nothing_runs()}
        case Clip():
            changes = _clip(record, event)
        case Steered():
            newer = record.plan is None or event.plan.rev > record.plan.rev
            changes = {"plan": event.plan} if newer else {}
        case Completed():
            changes = _ended(JobStatus.COMPLETED, event) | {
                "artifacts": tuple(absolute(artifact) for artifact in event.artifacts),
                "metrics": event.metrics,
                "progress": JobProgress(fraction=1.0),
            }
        case Failed():
            changes = _ended(JobStatus.FAILED, event) | {"error": _error(event)}
        case Cancelled():
            changes = _ended(JobStatus.CANCELLED, event)
        case Queued():
            changes = {}
    return changes


def _started(event: Started) -> dict[str, Any]:
    return {
        **_nothing_runs(),
        "status": JobStatus.RUNNING,
        "started_at": event.at,
        "worker": event.worker,
        "attempt": event.attempt,
    }


def _nothing_runs() -> dict[str, Any]:
    return {"started_at": None, "worker": None, "progress": JobProgress(), "preview": None}


def _error(event: Failed) -> JobError:
    return JobError(
        code=event.code, message=event.message, retryable=event.retryable, field=event.field
    )


def _ended(status: JobStatus, event: Completed | Failed | Cancelled) -> dict[str, Any]:
    return {"status": status, "finished_at": event.at, "preview": None}


def _clip(record: JobRecord, event: Clip) -> dict[str, Any]:
    """It takes the place of an earlier one and of all after that; the same one changes nothing."""
    artifact = absolute(event.artifact)
    if any(clip.index == event.index and clip.artifact == artifact for clip in record.clips):
        return {}
    clip = ClipRecord(
        index=event.index,
        prompt=sys.intern(event.prompt),  # hundreds of clips may share one long text
        seed=event.seed,
        artifact=artifact,
        init_bytes=event.init_bytes,
        at=event.at,
    )
    return {"clips": (*(kept for kept in record.clips if kept.index < event.index), clip)}


def _progress(record: JobRecord, event: Progress) -> dict[str, Any]:
    progress = JobProgress(
        fraction=event.fraction,
        stage=event.stage,
        step=event.step,
        steps=event.steps,
        eta_s=event.eta_s,
        clip=event.clip,
    )
    return {"progress": progress, "preview": event.preview or record.preview}


def absolute(artifact: Artifact) -> Artifact:
    """The artifact with an address that a browser can fetch; one with a scheme stays."""
    if "://" in artifact.url or artifact.url.startswith("/"):
        return artifact
    return artifact.model_copy(update={"url": OUTPUTS + artifact.url})


def listed(record: JobRecord) -> dict[str, Any]:
    """A record for JSON as one of many: without its clips, which may be hundreds."""
    return record.model_dump(mode="json", exclude={"clips"})


def shown(event: Event) -> dict[str, Any]:
    """An event for JSON, with addresses that a browser can fetch."""
    if isinstance(event, Clip):
        event = event.model_copy(update={"artifact": absolute(event.artifact)})
    elif isinstance(event, Completed):
        artifacts = tuple(absolute(artifact) for artifact in event.artifacts)
        event = event.model_copy(update={"artifacts": artifacts})
    found: dict[str, Any] = event.model_dump(mode="json")
    return found
