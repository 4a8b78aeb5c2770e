"""What crosses a process: Job, Event, Artifact. Pydantic, frozen, torch-free.

Readers ignore unknown fields and unknown event types, because worker and control plane are
deployed apart and an older reader must survive a newer writer.

    queued → started → (progress | clip)* → (completed | failed | cancelled)    steered: any time
                ↑         │
                └─requeued┘      the worker died, or the error was worth another try
"""

from __future__ import annotations

import secrets
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from core.errors import DiffboxError

Lane = Literal["high", "normal", "low"]
LANES: Final[tuple[Lane, ...]] = ("high", "normal", "low")

PREVIEW_MAX_BYTES: Final = 32_768
"""A preview is a data URI of at most this many bytes."""


class JobStatus(StrEnum):
    """Where a job stands. The last three are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class Stage(StrEnum):
    """A named part of a run, in the order in which they happen."""

    LOADING = "loading"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    SAVING = "saving"
    UPLOADING = "uploading"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def new_job_id() -> str:
    """A UUIDv7 that sorts by creation time to 0.25 us (RFC 9562 section 6.2, method 3)."""
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | 0x7 << 76 | (rest_ns * 4096 // 1_000_000) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


class Plan(_Wire):
    """The clips that a job makes. What has not begun may be changed while it runs (steering).

    Clips are counted over the whole video; a job that goes on from another one begins at `first`.
    """

    prompts: tuple[str, ...]
    """One a clip, from clip `first` on; where there are more clips, the last one goes on."""
    num_clips: int | None
    """How many clips this job makes; None: until it is told to finish."""
    first: int = 0
    finish: bool = False
    """End after the clip that is being made; the first one is always made."""
    rev: int = 0
    """Counts changes, so that two editors don't overwrite each other unseen."""

    @property
    def end(self) -> int | None:
        """The index after the last clip; None when there is no last one yet."""
        return None if self.num_clips is None else self.first + self.num_clips

    def prompt(self, index: int) -> str:
        """The prompt of clip `index`, counted over the whole video."""
        return self.prompts[min(index - self.first, len(self.prompts) - 1)]

    def wants(self, index: int) -> bool:
        """Whether clip `index` shall be made, once those before it are there."""
        if index == self.first:
            return True
        return not self.finish and (self.end is None or index < self.end)


class Job(_Wire):
    """One requested run of one workflow. `params` are validated and settled (seed chosen)."""

    id: str = Field(default_factory=new_job_id)
    workflow: str
    params: dict[str, Any]
    lane: Lane = "normal"
    created_at: AwareDatetime = Field(default_factory=now)
    attempt: int = 0
    """How often a worker has taken it; 1 while it runs for the first time."""
    plan: Plan | None = None
    """Its clips as they are wanted now; None for a workflow that makes none."""


class Artifact(_Wire):
    """One output file. `url` is relative to the storage's root until an edge makes it absolute."""

    kind: Literal["video", "image"]
    media_type: str
    filename: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    frames: int | None = None
    fps: float | None = None
    url: str


class _JobEvent(_Wire):
    job_id: str
    seq: int = 0
    """Counts a job's events from 1; given by the queue, 0 before it was there."""
    at: AwareDatetime = Field(default_factory=now)


class Queued(_JobEvent):
    """The job waits in its lane."""

    type: Literal["queued"] = "queued"


class Started(_JobEvent):
    """A worker has taken the job."""

    type: Literal["started"] = "started"
    worker: str
    attempt: int = 1


class Progress(_JobEvent):
    """Where the run is. `fraction` is of the whole job, 0 to 1, and never falls in an attempt."""

    type: Literal["progress"] = "progress"
    stage: Stage
    step: int = 0
    steps: int = 0
    """Steps of this stage; 0 when it can't be counted."""
    fraction: float = 0.0
    eta_s: float | None = None
    preview: str | None = None
    """JPEG or WebP data URI of at most PREVIEW_MAX_BYTES, or None for "as before"."""
    clip: int | None = None
    """Which clip is being made, counted over the whole video; None for a workflow without clips.
    Its prompt can't be changed any more."""


class Clip(_JobEvent):
    """A clip of a longer video is stored and can be watched. `index` counts from 0.

    Told again (with the same or another file) when a clip is found or made again by a later
    attempt: then it takes the place of the earlier one, and of all that came after that.
    """

    type: Literal["clip"] = "clip"
    index: int
    clips: int = 0
    """How many there will be; 0 while nobody knows."""
    artifact: Artifact
    """A fragmented mp4 that can be played alone or after the one before it."""
    init_bytes: int = 0
    """So many bytes at the file's start are the initialization segment (`EXT-X-MAP`)."""
    prompt: str = ""
    seed: int | None = None


class Steered(_JobEvent):
    """Somebody has changed the plan of a job that has not ended."""

    type: Literal["steered"] = "steered"
    plan: Plan


class Completed(_JobEvent):
    """Terminal: the outputs are stored."""

    type: Literal["completed"] = "completed"
    artifacts: tuple[Artifact, ...]
    metrics: dict[str, Any] = Field(default_factory=dict)


class Failed(_JobEvent):
    """Terminal: what went wrong, in words for the user."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool = False
    field: str | None = None
    """The parameter at fault, when it is one."""


class Cancelled(_JobEvent):
    """Terminal: ended because it was asked for."""

    type: Literal["cancelled"] = "cancelled"


class Requeued(_JobEvent):
    """The job waits again: its worker was lost, or the error may pass."""

    type: Literal["requeued"] = "requeued"
    reason: str


Event = Annotated[
    Queued | Started | Progress | Clip | Steered | Completed | Failed | Cancelled | Requeued,
    Field(discriminator="type"),
]
TerminalEvent = Completed | Failed | Cancelled
TERMINAL_EVENTS: Final = (Completed, Failed, Cancelled)

_event_adapter: Final[TypeAdapter[Any]] = TypeAdapter(Event)


class Device(_Wire):
    """What a worker computes on. Memory is the GPU's, or the machine's where there is none."""

    kind: Literal["cuda", "cpu"]
    name: str
    memory_total_bytes: int
    memory_free_bytes: int


class EngineState(_Wire):
    """What an engine can do: ids of the models whose weights are here, and on what it runs."""

    models: tuple[str, ...] = ()
    device: Device
    versions: dict[str, str] = Field(default_factory=dict)


class WorkerState(_Wire):
    """What a worker tells about itself, often enough to be missed when it dies."""

    id: str
    host: str
    pid: int
    state: Literal["starting", "ready", "busy", "unhealthy", "stopping"]
    job_id: str | None = None
    models: tuple[str, ...] = ()
    """Ids of the catalog's rows whose weights are here."""
    device: Device | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    at: AwareDatetime = Field(default_factory=now)


def parse_event(raw: str | bytes | dict[str, Any]) -> Any | None:
    """An Event from JSON or a dict; None for a type that this version does not know.

    Raises:
        ValidationError: a known type with a missing or malformed field.
    """
    try:
        if isinstance(raw, dict):
            return _event_adapter.validate_python(raw)
        return _event_adapter.validate_json(raw)
    except ValidationError as error:
        if any(e["type"] == "union_tag_invalid" for e in error.errors()):
            return None
        raise


def failed(job_id: str, error: BaseException) -> Failed:
    """The `failed` event for an error; anything but a DiffboxError is `internal`."""
    if isinstance(error, DiffboxError):
        field = error.problems[0].field or None if error.problems else None
        return Failed(
            job_id=job_id,
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            field=field,
        )
    return Failed(job_id=job_id, code="internal", message=f"{type(error).__name__}: {error}"[:2000])


def is_terminal(event: object) -> bool:
    """Whether the event ends its job."""
    return isinstance(event, TERMINAL_EVENTS)
