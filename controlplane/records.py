"""JobRecord: what is known about a job, and how each event changes it.

record = apply(record, event)        pure; jobs.py keeps the records, REST and WebSocket show them
"""

from __future__ import annotations

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
    Progress,
    Queued,
    Requeued,
    Stage,
    Started,
)

OUTPUTS: Final = "/outputs/"
"""Where the control plane serves the outputs folder."""


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobProgress(_Shown):
    """Where a running job is; `fraction` is of the whole job, 0 to 1."""

    fraction: float = 0.0
    stage: Stage | None = None
    step: int = 0
    steps: int = 0
    eta_s: float | None = None


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
    seq: int = 0

    @property
    def finished(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in TERMINAL

    def job(self) -> Job:
        """The job to submit; its attempts count on, because each one's outputs have a folder."""
        return Job(
            id=self.id,
            workflow=self.workflow,
            params=self.params,
            lane=self.lane,
            created_at=self.created_at,
            attempt=self.attempt,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Some records, newest first; `next` is the cursor of the page after it."""

    jobs: tuple[JobRecord, ...]
    next: str | None


def new_record(job: Job) -> JobRecord:
    """The record of a job that was just submitted, or has to start from the beginning."""
    return JobRecord(
        id=job.id,
        workflow=job.workflow,
        params=job.params,
        lane=job.lane,
        created_at=job.created_at,
        attempt=job.attempt,
    )


def stored_record(raw: Mapping[str, Any]) -> JobRecord:
    """A record as the store has it: without progress, which is known where the job completed.

    Raises:
        ValidationError: it is not a record.
    """
    record = JobRecord.model_validate(raw)
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
            changes = {"artifacts": (*record.artifacts, absolute(event.artifact))}
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
        "artifacts": (),
    }


def _nothing_runs() -> dict[str, Any]:
    return {"started_at": None, "worker": None, "progress": JobProgress(), "preview": None}


def _error(event: Failed) -> JobError:
    return JobError(
        code=event.code, message=event.message, retryable=event.retryable, field=event.field
    )


def _ended(status: JobStatus, event: Completed | Failed | Cancelled) -> dict[str, Any]:
    return {"status": status, "finished_at": event.at, "preview": None}


def _progress(record: JobRecord, event: Progress) -> dict[str, Any]:
    progress = JobProgress(
        fraction=event.fraction,
        stage=event.stage,
        step=event.step,
        steps=event.steps,
        eta_s=event.eta_s,
    )
    return {"progress": progress, "preview": event.preview or record.preview}


def absolute(artifact: Artifact) -> Artifact:
    """The artifact with an address that a browser can fetch; one with a scheme stays."""
    if "://" in artifact.url or artifact.url.startswith("/"):
        return artifact
    return artifact.model_copy(update={"url": OUTPUTS + artifact.url})


def shown(event: Event) -> dict[str, Any]:
    """An event for JSON, with addresses that a browser can fetch."""
    if isinstance(event, Clip):
        event = event.model_copy(update={"artifact": absolute(event.artifact)})
    elif isinstance(event, Completed):
        artifacts = tuple(absolute(artifact) for artifact in event.artifacts)
        event = event.model_copy(update={"artifacts": artifacts})
    found: dict[str, Any] = event.model_dump(mode="json")
    return found
