"""Agent: holds the lease of one job at a time while the engine's process does it.

    take ──> run in the child ──> finish          beats renew the lease and carry the events
                │ child dies ──> crash            at once, without waiting for the lease
                │ SIGTERM    ──> drain, requeue   not the job's fault
                └ lease lost ──> drop it          another worker has it

While the queue is away the job goes on, its result waits here, and the fence decides on return.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from core.catalog import ready_ids
from core.engine_process import EngineDied, EngineProcess
from core.errors import BackendUnavailable
from core.protocol import Cancelled, Clip, Event, Plan, TerminalEvent, WorkerState
from core.queue import Claim, Notice, Queue
from core.queue_keys import Outcome, Verdict
from handler.config import WorkerConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S: Final = 0.5
"""Between two attempts to reach the queue."""
_TICK_S: Final = 1.0
"""How often the agent looks around while a job runs without events."""
_STARTING_TTL_S: Final = 120.0
_READY_TIMEOUT_S: Final = 600.0
"""Importing torch from a slow network volume takes minutes."""


class Agent:
    """One worker. `stop` may be called from a signal handler, all else from the main thread.

    Args:
        config: ids, times and limits.
        queue: where jobs come from.
        engine: the child that does them.
        breaker: stops taking when children keep dying.
    """

    def __init__(
        self,
        config: WorkerConfig,
        queue: Queue,
        engine: EngineProcess,
        breaker: CrashLoop | None = None,
    ) -> None:
        self._config = config
        self._queue = queue
        self._engine = engine
        self._breaker = breaker or CrashLoop()
        self._stop_at: float | None = None
        self._holding: Holding | None = None
        self._told: tuple[str, str | None] | None = None
        self._tell_at = 0.0
        self._queue_away = False
        self._building = False

    def stop(self) -> None:
        """Take no more jobs; the running one has `drain_s` before it is given back."""
        if self._stop_at is None:
            self._stop_at = time.monotonic()
        if self._building:
            raise SystemExit(0)  # it can take minutes, and nothing is held meanwhile

    def serve(self) -> None:
        """Take and do jobs until stopped.

        Raises:
            ConfigError: the engine says that a setting is wrong.
        """
        try:
            self._engine.start()
            self._insist(self._queue.prepare, holding=False)
            self._announce("starting")
            threading.Thread(target=self._watch_notices, name="notices", daemon=True).start()
            while self._stop_at is None:
                if self._engine_ready():
                    self._serve_one()
        finally:
            self._announce("stopping")
            self._engine.close()
            self._withdraw()
        log.info("stopped", extra={"worker": self._config.worker_id})

    # --- the loop's steps ---------------------------------------------------------------------

    def _engine_ready(self) -> bool:
        """Whether a child is there to work; waits for it, or for the breaker's pause to end."""
        if (pause_s := self._breaker.pause_s()) > 0:
            self._announce("unhealthy")
            time.sleep(min(pause_s, _RETRY_S))
            return False
        if self._engine.state is not None:
            return True
        self._announce("starting")
        try:
            self._building = True
            state = self._engine.wait_ready(_READY_TIMEOUT_S)
        except EngineDied as error:
            self._child_died(error)
            return False
        finally:
            self._building = False
        about = {"worker": self._config.worker_id, "models": state.models}
        log.info("ready", extra={**about, "device": state.device.name})
        return True

    def _serve_one(self) -> None:
        self._announce("ready")
        claim = self._insist(lambda: self._queue.take(self._config.worker_id), holding=False)
        if claim is None:
            return
        about = {"job": claim.job.id, "workflow": claim.job.workflow, "attempt": claim.job.attempt}
        log.info("job taken", extra=about)
        outcome = self._work(claim)
        log.info("job left", extra={**about, "outcome": outcome})

    def _work(self, claim: Claim) -> Outcome | Literal["lost"] | None:
        """Have one job done. Returns what became of it, None if that can't be told to the queue."""
        holding = Holding(claim, self._queue, self._config.beat_s)
        self._announce("busy", claim.job.id)
        self._holding = holding
        try:
            end = self._engine.run(
                claim.job,
                on_event=lambda event: self._look_around(holding, event),
                beat=lambda: self._look_around(holding),
                beat_s=min(self._config.beat_s, _TICK_S),
            )
        except EngineDied as error:
            reason = error.message
            self._child_died(error)
            return self._insist(lambda: self._queue.crash(claim, reason))
        finally:
            self._holding = None
        if end is None:
            return "lost"
        self._breaker.finished()
        return self._insist(lambda: self._finish(holding, end))

    def _finish(self, holding: Holding, end: TerminalEvent) -> Outcome:
        holding.flush()
        if holding.given_back and isinstance(end, Cancelled):
            return self._queue.requeue(holding.claim, f"worker {self._config.worker_id} stops")
        return self._queue.finish(holding.claim, end)

    def _look_around(self, holding: Holding, event: Event | None = None) -> Verdict:
        """Called with every event of the running job, and each tick."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at + self._config.drain_s:
            holding.given_back = True
        verdict = holding.tell(event)
        if holding.reached:
            self._announce("busy", holding.claim.job.id)
        return "cancel" if holding.given_back and verdict == "go" else verdict

    def _child_died(self, error: EngineDied) -> None:
        log.warning("the engine process died", extra={"why": error.message})
        if self._breaker.died():
            log.error(
                "too many deaths in a row; pausing", extra={"pause_s": self._breaker.pause_s()}
            )
        else:
            self._engine.start()

    # --- talking to the queue -----------------------------------------------------------------

    def _insist(self, call: Callable[[], T], *, holding: bool = True) -> T | None:
        """Call until the queue answers. None when this worker must end before it does.

        A worker that is stopped and holds a job's result waits a little longer.
        """
        while True:
            try:
                result = call()
            except BackendUnavailable as error:
                if not self._queue_away:
                    log.warning("the queue is away", extra={"why": error.message})
                self._queue_away = True
                if self._out_of_time(holding):
                    return None
                time.sleep(_RETRY_S)
            else:
                if self._queue_away:
                    log.info("the queue is back")
                self._queue_away = False
                return result

    def _out_of_time(self, holding: bool) -> bool:
        if self._stop_at is None:
            return False
        patience_s = self._config.drain_s + self._config.grace_s if holding else 0.0
        return time.monotonic() >= self._stop_at + patience_s

    def _announce(
        self,
        state: Literal["starting", "ready", "busy", "unhealthy", "stopping"],
        job_id: str | None = None,
    ) -> None:
        """Tell our state when it changed, and with each beat."""
        now = time.monotonic()
        if self._told == (state, job_id) and now < self._tell_at:
            return
        told = WorkerState(
            id=self._config.worker_id, host=socket.gethostname(), pid=os.getpid(), state=state,
            job_id=job_id,
        )  # fmt: skip
        if built := self._engine.state:
            # Looked for each time, so that weights which arrive later count without a restart.
            models = ready_ids(self._config.models_dir)
            about = {"models": models, "device": built.device, "versions": built.versions}
            told = told.model_copy(update=about)
        # Nothing is told while the engine is built.
        ttl_s = _STARTING_TTL_S if state == "starting" else self._config.lease_s
        try:
            self._queue.announce(told, ttl_s=ttl_s)
        except BackendUnavailable:
            return  # said by whoever needs an answer
        self._told, self._tell_at = (state, job_id), now + self._config.beat_s

    def _withdraw(self) -> None:
        try:
            self._queue.withdraw(self._config.worker_id)
        except BackendUnavailable:
            return  # it is forgotten by its TTL

    def _watch_notices(self) -> None:
        """Runs in its own thread: what is asked is seen in milliseconds, not with the next beat."""
        while True:
            try:
                for notice in self._queue.notices(60):
                    self._heed(notice)
            except BackendUnavailable:
                time.sleep(_RETRY_S)

    def _heed(self, notice: Notice) -> None:
        holding = self._holding
        if holding is None or holding.claim.job.id != notice.job_id:
            return
        if notice.kind == "cancel":
            self._engine.cancel(notice.job_id)
        elif notice.rev != holding.plan_rev:
            plan = self._queue.plan(notice.job_id)
            # Not before the engine has the job: a beat asks for it again.
            if plan is not None and self._engine.steer(notice.job_id, plan):
                holding.plan = plan


@dataclass(slots=True)
class Holding:
    """A claim while its job runs: renews the lease and tells the events, as far as it can.

    Progress that can't be told now is replaced by newer progress; clips wait.
    """

    claim: Claim
    queue: Queue
    beat_s: float
    given_back: bool = False
    plan: Plan | None = None
    """The newest one that the engine has, None as long as that is the claim's."""
    reached: bool = False
    """Whether the last call spoke with the queue."""
    _clips: deque[Clip] = field(default_factory=deque)
    _progress: Event | None = None
    _beat_at: float = 0.0
    _retry_at: float = 0.0

    @property
    def plan_rev(self) -> int | None:
        """Of the plan that the engine has; None for a job without one."""
        plan = self.plan or self.claim.job.plan
        return None if plan is None else plan.rev

    def tell(self, event: Event | None) -> Verdict:
        """Tell an event, or nothing new; beats when that is due."""
        if isinstance(event, Clip):
            self._clips.append(event)
        elif event is not None:
            self._progress = event
        now = time.monotonic()
        due = self._clips or self._progress or now >= self._beat_at
        self.reached = False
        if not due or now < self._retry_at:
            return "go"
        try:
            verdict = self.flush()
            if self._progress or verdict is None:
                verdict = self.queue.beat(self.claim, self._progress, plan=self.plan)
        except BackendUnavailable:
            # The job goes on. Not every event may wait for a server that hangs.
            self._retry_at = time.monotonic() + _RETRY_S
            return "go"
        self._progress, self.reached = None, True
        self._beat_at = time.monotonic() + self.beat_s
        return verdict

    def flush(self) -> Verdict | None:
        """Tell the clips that wait; None when there are none."""
        verdict: Verdict | None = None
        while self._clips:
            verdict = self.queue.beat(self.claim, self._clips[0], plan=self.plan)
            self._clips.popleft()
        return verdict


@dataclass(slots=True)
class CrashLoop:
    """Breaks a loop of dying children: after so many deaths without a finished job, a pause."""

    deaths: int = 3
    window_s: float = 300.0
    rest_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _died: deque[float] = field(default_factory=deque)
    _rest_until: float = 0.0

    def died(self) -> bool:
        """A child died; True when that was one too many and a pause begins."""
        now = self.clock()
        self._died.append(now)
        while self._died[0] < now - self.window_s:
            self._died.popleft()
        if len(self._died) < self.deaths:
            return False
        self._died.clear()
        self._rest_until = now + self.rest_s
        return True

    def finished(self) -> None:
        """A job came to its end: the children are fine."""
        self._died.clear()

    def pause_s(self) -> float:
        """How long to wait before the next child; 0 or less for no time."""
        return self._rest_until - self.clock()
