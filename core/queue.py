"""The queue as workers see it: take a job, beat while it runs, end it. Layout: core.queue_keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import PASSING_CODES, ConfigError
from core.protocol import LANES, Event, Failed, Job, Plan, TerminalEvent, WorkerState, is_terminal
from core.queue_keys import (
    BLOCK_S,
    CLIENT_OPTIONS,
    CONTROL,
    GROUP,
    START,
    WORKERS,
    CancelReply,
    Outcome,
    Rules,
    Script,
    SteerReply,
    Verdict,
    cancel_args,
    decode,
    decode_job,
    encode_event,
    enqueue_args,
    enqueued,
    events_key,
    job_key,
    lane_key,
    reaching_server,
    script,
    steer_args,
    worker_key,
)

T = TypeVar("T")

_WORKER_FORGOTTEN_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A job that this worker holds until its fence moves on."""

    job: Job
    fence: int
    crashes: int
    retries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What the owner of a running job is told at once. Not for good: a beat finds what was missed.

    `rev` is that of the new plan, 0 with a cancel.
    """

    kind: Literal["cancel", "steer"]
    job_id: str
    rev: int = 0


class Queue:
    """A worker's side of the queue. Calls raise BackendUnavailable while the server is away.

    Args:
        client: made with CLIENT_OPTIONS and without silent retries: a TAKE that is sent twice
            would take two jobs.
        rules: lease, limits and retries.
    """

    def __init__(self, client: redis.Redis, rules: Rules | None = None) -> None:
        self.client: Any = client  # redis-py's types leave the shape of replies open
        self.rules = rules or Rules()
        self._scripts = {name: client.register_script(script(name)) for name in get_args(Script)}

    @classmethod
    def connect(cls, url: str, rules: Rules | None = None) -> Queue:
        """A queue on the server at `url` (redis, rediss or unix). Connects on first use.

        Raises:
            ConfigError: the URL is malformed.
        """
        try:
            client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **CLIENT_OPTIONS)
        except ValueError as error:
            raise ConfigError(f"DIFFBOX_VALKEY_URL can't be used: {error}") from error
        return cls(client, rules)

    def prepare(self) -> None:
        """Make the lanes and their groups where they are missing."""
        for lane in LANES:
            try:
                with reaching_server():
                    self.client.xgroup_create(lane_key(lane), GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    # --- jobs in ------------------------------------------------------------------------------

    def enqueue(self, job: Job) -> bool:
        """Put a job into its lane; False when its id is known already. Counts on from its attempt.

        Raises:
            QueueFull: the lane holds as many jobs as it may.
        """
        reply = self._run("enqueue", *enqueue_args(job, self.rules))
        return enqueued(reply, job, self.rules)

    def cancel(self, job_id: str) -> CancelReply:
        """End a waiting job now; ask the owner of a running one ("cancelling")."""
        reply: CancelReply = self._run("cancel", *cancel_args(job_id, self.rules))
        return reply

    def steer(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Change the plan of a job that has not ended and whose plan is at `expected_rev`."""
        reply: SteerReply = self._run("steer", *steer_args(job_id, plan, expected_rev))
        return reply

    # --- a worker's loop ----------------------------------------------------------------------

    def take(self, worker: str, block_s: float = BLOCK_S) -> Claim | None:
        """The next job, or None after waiting for at most `block_s`.

        The wait is a doorbell: it takes no job, so no job is held by somebody who doesn't know.
        """
        args: list[str | int] = [
            worker,
            int(self.rules.lease_s * 1000),
            self.rules.max_crashes,
            *LANES,
        ]
        reply = self._with_groups(lambda: self._run("take", *args))
        if reply[0] == "job":
            _, spec, fence, attempt, crashes, retries, plan = reply
            job = decode_job(spec, plan).model_copy(update={"attempt": attempt})
            return Claim(job=job, fence=fence, crashes=crashes, retries=retries)
        due_ms, tips = reply[1], reply[2:]
        wait_ms = int(min(block_s, BLOCK_S) * 1000)
        if due_ms >= 0:
            wait_ms = min(wait_ms, due_ms)
        if wait_ms > 0:
            streams = dict(zip(map(lane_key, LANES), tips, strict=True))
            with reaching_server():
                self.client.xread(streams, count=1, block=wait_ms)
        return None

    def beat(
        self, claim: Claim, event: Event | None = None, *, plan: Plan | None = None
    ) -> Verdict:
        """Renew the lease and tell an event on the way. "lost": the job is another's now.

        When the job has a newer plan than `plan`, or than the claim's, its notice comes again.
        """
        known = plan or claim.job.plan
        args: list[str | int] = [claim.job.id, claim.fence, "" if known is None else known.rev]
        if event is not None:
            has_preview = getattr(event, "preview", None) is not None
            args += [event.type, encode_event(event), "1" if has_preview else "0"]
        verdict: Verdict = self._run("beat", *args)
        return verdict

    def finish(self, claim: Claim, event: TerminalEvent) -> Outcome:
        """End a job, or let it wait for a retry when its failure may pass.

        Outputs must be stored before. "refused": it was another's, or had been ended before.
        """
        if isinstance(event, Failed) and event.code in PASSING_CODES:
            delay_ms = self.rules.delay_ms(claim.retries)
            return self._finish(
                claim, "retry", encode_event(event), self.rules.max_retries, delay_ms
            )
        return self._finish(claim, event.type, encode_event(event))

    def crash(self, claim: Claim, reason: str) -> Outcome:
        """The process that ran the job died: again, or buried after `max_crashes`."""
        return self._finish(claim, "crash", reason, self.rules.max_crashes)

    def requeue(self, claim: Claim, reason: str) -> Outcome:
        """Give a job back that is not to blame, for example because this worker stops."""
        return self._finish(claim, "requeue", reason)

    def notices(self, timeout_s: float) -> Iterator[Notice]:
        """What the owners of running jobs are told, as it is said.

        Ends after `timeout_s` without one, so that the caller can look around.
        """
        with reaching_server(), self.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(CONTROL)
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                message = channel.get_message(timeout=min(left, BLOCK_S))
                if message is not None:
                    deadline = time.monotonic() + timeout_s
                    if (notice := _notice(str(message["data"]))) is not None:
                        yield notice

    # --- what others may see ------------------------------------------------------------------

    def announce(self, state: WorkerState, ttl_s: float) -> None:
        """Tell what this worker does; forgotten after `ttl_s` without a further call."""
        now = time.time()
        with reaching_server(), self.client.pipeline(transaction=False) as pipe:
            pipe.set(worker_key(state.id), state.model_dump_json(), px=int(ttl_s * 1000))
            pipe.zadd(WORKERS, {state.id: now})
            pipe.zremrangebyscore(WORKERS, "-inf", now - _WORKER_FORGOTTEN_S)
            pipe.execute()

    def withdraw(self, worker: str) -> None:
        """Forget a worker that ends in good order."""
        with reaching_server(), self.client.pipeline(transaction=False) as pipe:
            pipe.delete(worker_key(worker))
            pipe.zrem(WORKERS, worker)
            pipe.execute()

    def workers(self) -> list[WorkerState]:
        """Workers that were heard of lately."""
        with reaching_server():
            ids = self.client.zrange(WORKERS, 0, -1)
            found = self.client.mget([worker_key(worker) for worker in ids]) if ids else []
        return [WorkerState.model_validate_json(raw) for raw in found if raw]

    def plan(self, job_id: str) -> Plan | None:
        """The newest plan of a job; None when it was not steered, or is unknown."""
        with reaching_server():
            raw = self.client.hget(job_key(job_id), "plan")
        return Plan.model_validate_json(raw) if raw else None

    def job(self, job_id: str) -> dict[str, str]:
        """A job's hash; empty when it is unknown."""
        with reaching_server():
            found: dict[str, str] = self.client.hgetall(job_key(job_id))
        return found

    def events(
        self, job_id: str, after: str = START, block_s: float = BLOCK_S
    ) -> Iterator[tuple[str, Event]]:
        """A job's events after a cursor: what was, then what comes, up to the terminal one.

        Ends early when nothing comes for `block_s`; go on from the last cursor.
        """
        key = events_key(job_id)
        while True:
            wait_ms = max(1, int(min(block_s, BLOCK_S) * 1000))
            with reaching_server():
                reply = self.client.xread({key: after}, count=200, block=wait_ms)
            entries = reply.get(key, []) if reply else []
            if not entries:
                return
            for entry in entries:
                after, event = decode(entry)
                if event is not None:
                    yield after, event
                if is_terminal(event):
                    return

    # --- inside -------------------------------------------------------------------------------

    def _finish(
        self, claim: Claim, how: str, body: str, limit: int = 0, delay_ms: int = 0
    ) -> Outcome:
        outcome: Outcome = self._run(
            "finish", claim.job.id, claim.fence, how, body, limit, delay_ms
        )
        return outcome

    def _with_groups(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        # The server came back empty.
        self.prepare()
        return call()

    def _run(self, name: Script, *args: str | int) -> Any:
        with reaching_server():
            return self._scripts[name](args=list(args))


def _notice(text: str) -> Notice | None:
    """A notice from what was published; None for a kind that this version does not know."""
    match text.split(" "):
        case ["cancel", job_id]:
            return Notice(kind="cancel", job_id=job_id)
        case ["steer", job_id, rev]:
            return Notice(kind="steer", job_id=job_id, rev=int(rev))
    return None
