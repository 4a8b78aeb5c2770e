"""One tree for everything that can go wrong on purpose.

    DiffboxError               code                  retry  HTTP  who acts
    ├── InvalidParams          invalid_params        no     422   the user: a value of the form
    ├── InputRejected          input_rejected        no     422   the user: another picture or URL
    ├── UnknownWorkflow        unknown_workflow      no     404   the user
    ├── NotFound               not_found             no     404   the user
    ├── Unauthorized           unauthorized          no     401   sign in
    ├── ModelMissing           model_missing         yes    409   download it, then again
    ├── Conflict               conflict              no     409   look again: it has changed
    ├── QueueFull              queue_full            yes    429   wait
    ├── BackendUnavailable     backend_unavailable   yes    503   wait
    ├── StorageFailed          storage_failed        yes    507   free or enlarge the disk
    ├── OutOfMemory            out_of_memory         no     –     smaller size, larger GPU
    ├── JobTimeout             timeout               yes    –     operator
    ├── JobCancelled           cancelled             no     –     control flow; ends as `cancelled`
    ├── WorkerLost             worker_lost           yes    –     runs again elsewhere
    ├── DownloadFailed         download_failed       yes    –     per Download, not per Job
    ├── DeliveryFailed         delivery_failed       yes    –     operator: bucket or network
    └── ConfigError            config                no     –     stops the start; names variable

Anything else is `internal`: a bug, logged with its traceback. HTTP is filled only for what a
request can raise itself; what happens inside a job arrives as its `failed` event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

EX_CONFIG: Final = 78
"""Exit code (sysexits.h) of a process whose settings are wrong: starting again is no use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One rejected value: where it stands and what would be accepted.

    `field` is a parameter's name, or "" when the whole request is meant.
    """

    field: str
    message: str


class DiffboxError(Exception):
    """Base of every expected error. The message is shown to the user as it is."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later, once something has changed."""
    passes: ClassVar[bool] = False
    """Whether it may pass without anybody doing anything, so that the queue tries again itself."""
    http_status: ClassVar[int | None] = None

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems


class InvalidParams(DiffboxError):
    """A parameter is missing, unknown, out of range, or not usable with the chosen model."""

    code = "invalid_params"
    http_status = 422


class InputRejected(DiffboxError):
    """A picture, video or URL that we do not take: broken, too large, animated, forbidden."""

    code = "input_rejected"
    http_status = 422


class UnknownWorkflow(DiffboxError):
    """No workflow has this id."""

    code = "unknown_workflow"
    http_status = 404


class NotFound(DiffboxError):
    """No such job, upload or output."""

    code = "not_found"
    http_status = 404


class Unauthorized(DiffboxError):
    """No valid session cookie or bearer token."""

    code = "unauthorized"
    http_status = 401


class ModelMissing(DiffboxError):
    """Weights that the job needs are not on this machine, or are damaged."""

    code = "model_missing"
    retryable = True
    http_status = 409


class Conflict(DiffboxError):
    """What shall be changed has been changed by somebody else, or has ended."""

    code = "conflict"
    http_status = 409


class QueueFull(DiffboxError):
    """The lane holds as many jobs as it may."""

    code = "queue_full"
    retryable = True
    http_status = 429


class BackendUnavailable(DiffboxError):
    """The place where jobs run cannot be reached now."""

    code = "backend_unavailable"
    retryable = True
    passes = True
    http_status = 503


class StorageFailed(DiffboxError):
    """A file could not be written: disk full, folder read-only."""

    code = "storage_failed"
    retryable = True
    http_status = 507


class OutOfMemory(DiffboxError):
    """The GPU (or the machine) has too little memory for this size."""

    code = "out_of_memory"


class JobTimeout(DiffboxError):
    """The job ran longer than it may, or made no progress for too long."""

    code = "timeout"
    retryable = True


class JobCancelled(DiffboxError):
    """Somebody asked for the job to end. Control flow: it ends as `cancelled`, never `failed`."""

    code = "cancelled"


class WorkerLost(DiffboxError):
    """The process that ran the job died, more often than is allowed."""

    code = "worker_lost"
    retryable = True


class DownloadFailed(DiffboxError):
    """A file could not be fetched or failed its checksum."""

    code = "download_failed"
    retryable = True
    passes = True


class DeliveryFailed(DiffboxError):
    """A finished output could not be handed over."""

    code = "delivery_failed"
    retryable = True
    passes = True


class ConfigError(DiffboxError):
    """A setting is wrong. Stops the start and names the variable."""

    code = "config"


PASSING_CODES: Final = frozenset(cls.code for cls in DiffboxError.__subclasses__() if cls.passes)
"""A job that failed with one of these is tried again by the queue. A full disk or a missing model
is not: each attempt would cost the whole denoising, and the next one would end the same."""
