"""Backend: the contract between the control plane and the place where jobs run.

    control plane ──submit, cancel, steer──> backend ──on_event(job, cursor, event)──> listener

All methods are called on one event loop, and the listener is called on it as well. A cursor is
opaque text that marks a place in one job's events; "" is before the first one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from core.protocol import Event, Job, Lane, Plan, WorkerState
from core.queue_keys import SteerReply


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEvent:
    """An event with the place it has among its job's events."""

    cursor: str
    event: Event


class Listener(Protocol):
    """What a backend tells the control plane."""

    def on_event(self, job_id: str, cursor: str, event: Event) -> None:
        """The next event of a followed job, in order; never twice while it is followed."""

    def on_found(self, job_id: str) -> None:
        """A job that is not followed was put in, by us before a crash or by somebody else."""

    async def on_connected(self) -> None:
        """The backend can be reached (again), and may have forgotten jobs since."""


class Backend(Protocol):
    """Where jobs run. A method may raise BackendUnavailable when the place can't be reached."""

    @property
    def durable(self) -> bool:
        """Whether a submitted job outlives this process without its record."""

    @property
    def reachable(self) -> bool:
        """Whether jobs can be submitted now."""

    async def start(self, listener: Listener) -> None:
        """Begin. Returns at once; what can't be reached yet is tried again until it can."""

    async def close(self) -> None:
        """End; jobs that other processes run go on."""

    async def submit(self, job: Job) -> None:
        """Put a job in and follow it from its first event. Twice with one id is once.

        Raises:
            QueueFull: its lane holds as many jobs as it may.
            BackendUnavailable: try again later; the job may yet have arrived.
        """

    async def cancel(self, job_id: str) -> None:
        """Ask for the job's end; a job that has ended or is unknown stays as it is."""

    async def steer(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Have a job that has not ended make the clips of another plan.

        "stale": its plan is at another rev than `expected_rev`, or it has none; "missing": the
        job is unknown; else how it had ended. Its events tell a change that was made.
        """

    async def follow(self, job_id: str, after: str = "") -> None:
        """Deliver a known job's events that come after a cursor, until the terminal one."""

    async def events(self, job_id: str, after: str = "", limit: int = 1000) -> list[StoredEvent]:
        """What is kept of a job's events after a cursor, oldest first; empty when unknown."""

    async def job_ids(self) -> set[str]:
        """All jobs that the backend knows, finished ones too as long as it keeps them."""

    async def job(self, job_id: str) -> Job | None:
        """The job as it was submitted, with the plan that it has now; None when unknown."""

    async def forget(self, job_ids: Collection[str]) -> None:
        """Drop the events of ended jobs whose records are safe; others stay as they are."""

    def workers(self) -> tuple[WorkerState, ...]:
        """Who runs jobs, as last told; empty when nobody does or the place can't be reached."""

    async def queue_lengths(self) -> dict[Lane, int]:
        """Jobs in each lane, waiting and running."""
