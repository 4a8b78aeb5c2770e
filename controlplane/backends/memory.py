"""Jobs run in a child of this process: no server, no worker, nothing kept after the process ends.

    submit ──> lanes ──thread──> EngineProcess ──events──> listener (on the event loop)

For `diffbox ui` alone and for tests. Crashes and retries are counted as the Valkey queue does it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import signal
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Literal

from controlplane.backends.base import Listener, StoredEvent
from core.engine_process import EngineDied, EngineProcess, Verdict
from core.errors import PASSING_CODES, ConfigError, QueueFull
from core.protocol import (
    LANES,
    TERMINAL_EVENTS,
    Cancelled,
    EngineState,
    Event,
    Failed,
    Job,
    Lane,
    Plan,
    Progress,
    Queued,
    Requeued,
    Started,
    Steered,
    TerminalEvent,
    WorkerState,
    failed,
)
from core.queue_keys import Rules, SteerReply

log = logging.getLogger(__name__)

_BEAT_S: Final = 0.5
_EVENTS_KEPT: Final = 1000
"""Of one job; the oldest go first."""
_FINISHED_KEPT: Final = 50
"""Jobs whose events can still be read after their end."""


@dataclass(slots=True)
class _Entry:
    """A job as this backend has it."""

    job: Job
    attempt: int = 0
    crashes: int = 0
    retries: int = 0
    seq: int = 0
    cancel: bool = False
    passed_on: Plan | None = None
    """The plan that the engine has."""
    events: deque[StoredEvent] = field(default_factory=lambda: deque(maxlen=_EVENTS_KEPT))


class MemoryBackend:
    """The backend without servers.

    Args:
        process: the child that holds the engine; started and closed here.
        rules: lane limit, crashes and retries; the lease is not used.
    """

    durable = False

    def __init__(self, process: EngineProcess, rules: Rules) -> None:
        self._process = process
        self._rules = rules
        self._lanes: dict[Lane, deque[str]] = {lane: deque() for lane in LANES}
        self._delayed: list[tuple[float, str]] = []
        self._entries: dict[str, _Entry] = {}
        self._finished: OrderedDict[str, _Entry] = OrderedDict()
        self._running: str | None = None
        self._engine: EngineState | None = None
        self._unhealthy = False
        self._closing = False
        # Guards all of the above; the thread waits on it for work.
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def reachable(self) -> bool:
        """Whether the thread that runs the jobs is there."""
        return self._thread.is_alive()

    # --- Backend, on the event loop ------------------------------------------------------------

    async def start(self, listener: Listener) -> None:
        """Begin; the engine gets ready in the background."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        await listener.on_connected()
        self._thread.start()

    async def close(self) -> None:
        """End the child; a running job is not told so and begins anew at the next start."""
        with self._change:
            self._closing = True
            if pid := self._process.pid:
                os.kill(pid, signal.SIGKILL)  # the thread reads the end of its output
            self._change.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def submit(self, job: Job) -> None:
        """Put a job at the end of its lane.

        Raises:
            QueueFull: the lane holds as many jobs as it may.
        """
        with self._change:
            if job.id in self._entries or job.id in self._finished:
                return
            if self._lane_length(job.lane) >= self._rules.lane_limit:
                raise QueueFull(
                    f"the {job.lane} lane holds {self._rules.lane_limit} jobs; try again later"
                )
            self._entries[job.id] = _Entry(job, attempt=job.attempt)
            self._lanes[job.lane].append(job.id)
            self._tell(job.id, Queued(job_id=job.id))
            self._change.notify()

    async def cancel(self, job_id: str) -> None:
        """End a waiting job now, a running one soon."""
        with self._change:
            entry = self._entries.get(job_id)
            if entry is None:
                return
            entry.cancel = True
            if job_id == self._running:
                self._process.cancel(job_id)
                return
            self._forget_waiting(job_id, entry.job.lane)
            self._end(job_id, Cancelled(job_id=job_id))

    async def steer(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Change the plan of a job; a running one has it by the next event or beat."""
        with self._change:
            entry = self._entries.get(job_id)
            if entry is None:
                return self._how_it_ended(job_id)
            if entry.job.plan is None or entry.job.plan.rev != expected_rev:
                return "stale"
            entry.job = entry.job.model_copy(update={"plan": plan})
            self._tell(job_id, Steered(job_id=job_id, plan=plan))
            return "steered"

    async def follow(self, job_id: str, after: str = "") -> None:
        """Nothing to do: a job is followed from its submission on."""

    async def events(self, job_id: str, after: str = "", limit: int = 1000) -> list[StoredEvent]:
        """The job's events after a cursor."""
        with self._change:
            entry = self._entries.get(job_id) or self._finished.get(job_id)
            found = list(entry.events) if entry else []
        seen = int(after) if after.isdecimal() else 0
        return [stored for stored in found if int(stored.cursor) > seen][:limit]

    async def job_ids(self) -> set[str]:
        """Waiting and running jobs, and some finished ones."""
        with self._change:
            return {*self._entries, *self._finished}

    async def job(self, job_id: str) -> Job | None:
        """The job as submitted, with its newest plan."""
        with self._change:
            entry = self._entries.get(job_id) or self._finished.get(job_id)
            return entry.job if entry else None

    async def forget(self, job_ids: Collection[str]) -> None:
        """Drop the events of ended jobs."""
        with self._change:
            for job_id in job_ids:
                self._finished.pop(job_id, None)

    def workers(self) -> tuple[WorkerState, ...]:
        """The one child."""
        engine, running = self._engine, self._running
        idle: Literal["unhealthy", "ready", "starting"] = "ready" if engine else "starting"
        state = WorkerState(
            id="memory",
            host=socket.gethostname(),
            pid=self._process.pid or 0,
            state="busy" if running else "unhealthy" if self._unhealthy else idle,
            job_id=running,
            models=engine.models if engine else (),
            device=engine.device if engine else None,
            versions=engine.versions if engine else {},
        )
        return (state,)

    async def queue_lengths(self) -> dict[Lane, int]:
        """Jobs in each lane, waiting and running."""
        with self._change:
            return {lane: self._lane_length(lane) for lane in LANES}

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        """Start the child from this thread, which lives as long as it, and run job after job."""
        self._get_ready()
        while (entry := self._take()) is not None:
            try:
                self._run(entry)
            except Exception as error:
                log.exception("job %s could not be run", entry.job.id)
                self._broken(entry, error)
            if not self._closing:
                self._get_ready()
        self._process.kill()

    def _run(self, entry: _Entry) -> None:
        try:
            event = self._process.run(
                entry.job, on_event=self._on_event, beat=self._verdict, beat_s=_BEAT_S
            )
        except EngineDied as error:
            self._crashed(entry, error.message)
        except ConfigError as error:
            self._finish(entry, failed(entry.job.id, error))
        else:
            if event is not None:
                self._finish(entry, event)

    def _broken(self, entry: _Entry, error: Exception) -> None:
        """Neither the job nor the child can be trusted any more, but the next ones can."""
        with self._change:
            self._unhealthy = True
            self._running = None
            if entry.job.id in self._entries:
                self._end(entry.job.id, failed(entry.job.id, error))
        self._process.kill()

    def _get_ready(self) -> None:
        try:
            self._engine = self._process.wait_ready()
            self._unhealthy = False
        except (EngineDied, ConfigError) as error:
            self._unhealthy = True
            log.error("the engine does not start: %s", error.message)
        except Exception:
            self._unhealthy = True
            log.exception("the engine does not start")

    def _take(self) -> _Entry | None:
        """The next job, as started; None when the backend closes."""
        with self._change:
            while not self._closing:
                due_s = self._wake_delayed()
                for lane in LANES:
                    if self._lanes[lane]:
                        return self._started(self._lanes[lane].popleft())
                self._change.wait(due_s)
            return None

    def _wake_delayed(self) -> float | None:
        """Put jobs whose wait is over back; seconds until the next one's."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            _, job_id = heapq.heappop(self._delayed)
            self._lanes[self._entries[job_id].job.lane].append(job_id)
        return max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else None

    def _started(self, job_id: str) -> _Entry:
        entry = self._entries[job_id]
        entry.attempt += 1
        entry.job = entry.job.model_copy(update={"attempt": entry.attempt})
        entry.passed_on = entry.job.plan
        self._running = job_id
        self._tell(job_id, Started(job_id=job_id, worker="memory", attempt=entry.attempt))
        return entry

    def _on_event(self, event: Event) -> Verdict:
        with self._change:
            self._tell(event.job_id, event)
        return self._verdict()

    def _verdict(self) -> Verdict:
        if self._closing:
            return "lost"
        entry = self._entries.get(self._running or "")
        if entry is None:
            return "go"
        plan = entry.job.plan
        if plan is not None and plan is not entry.passed_on:
            self._process.steer(entry.job.id, plan)
            entry.passed_on = plan
        return "cancel" if entry.cancel else "go"

    def _crashed(self, entry: _Entry, reason: str) -> None:
        entry.crashes += 1
        job_id = entry.job.id
        with self._change:
            self._running = None
            if self._closing:
                return
            if entry.cancel:
                self._end(job_id, Cancelled(job_id=job_id))
            elif entry.crashes >= self._rules.max_crashes:
                times = f"The worker was lost {entry.crashes} times while it ran this job"
                lost = Failed(
                    job_id=job_id, code="worker_lost", message=f"{times}: {reason}", retryable=True
                )
                self._end(job_id, lost)
            else:
                self._lanes[entry.job.lane].append(job_id)
                self._tell(job_id, Requeued(job_id=job_id, reason=reason))

    def _finish(self, entry: _Entry, event: TerminalEvent) -> None:
        job_id = entry.job.id
        with self._change:
            self._running = None
            retry = isinstance(event, Failed) and event.code in PASSING_CODES
            if retry and entry.cancel:  # it would run again, but somebody asked for its end
                self._end(job_id, Cancelled(job_id=job_id))
            elif isinstance(event, Failed) and retry and entry.retries < self._rules.max_retries:
                due = time.monotonic() + self._rules.delay_ms(entry.retries) / 1000
                entry.retries += 1
                heapq.heappush(self._delayed, (due, job_id))
                self._tell(job_id, Requeued(job_id=job_id, reason=event.message))
            else:
                self._end(job_id, event)

    # --- with the lock held --------------------------------------------------------------------

    def _tell(self, job_id: str, event: Event) -> None:
        """Number an event, keep it, and deliver it on the event loop."""
        entry = self._entries[job_id]
        entry.seq += 1
        numbered = event.model_copy(update={"seq": entry.seq})
        stored = StoredEvent(cursor=str(entry.seq), event=numbered)
        if isinstance(event, Progress) and event.preview:
            _drop_previews(entry)  # only the newest picture is kept
        entry.events.append(stored)
        self._loop.call_soon_threadsafe(
            self._listener.on_event, job_id, stored.cursor, stored.event
        )

    def _end(self, job_id: str, event: TerminalEvent) -> None:
        self._tell(job_id, event)
        entry = self._finished[job_id] = self._entries.pop(job_id)
        _drop_previews(entry)
        while len(self._finished) > _FINISHED_KEPT:
            self._finished.popitem(last=False)

    def _how_it_ended(self, job_id: str) -> Literal["missing", "completed", "failed", "cancelled"]:
        entry = self._finished.get(job_id)
        end = entry.events[-1].event if entry else None
        return end.type if isinstance(end, TERMINAL_EVENTS) else "missing"

    def _lane_length(self, lane: Lane) -> int:
        running = self._entries.get(self._running or "")
        return len(self._lanes[lane]) + (running is not None and running.job.lane == lane)

    def _forget_waiting(self, job_id: str, lane: Lane) -> None:
        if job_id in self._lanes[lane]:
            self._lanes[lane].remove(job_id)
        self._delayed = [item for item in self._delayed if item[1] != job_id]
        heapq.heapify(self._delayed)


def _drop_previews(entry: _Entry) -> None:
    for index, stored in enumerate(entry.events):
        event = stored.event
        if isinstance(event, Progress) and event.preview:
            bare = event.model_copy(update={"preview": None})
            entry.events[index] = StoredEvent(cursor=stored.cursor, event=bare)
