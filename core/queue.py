"""The queue: Valkey's layout, its scripts, and the client that workers use.

    key                   type    content                                            TTL
    {dbx}:q:<lane>        stream  job=<id>; one group; an entry goes when its job     permanent
                                  ends or waits for a retry, so XLEN is what
                                  waits and what runs
    {dbx}:job:<id>        hash    spec (Job as JSON) status lane entry attempt        none until it
                                  crashes retries fence owner cancel seq preview      ends, then a
                                  queued_at started_at finished_at (ms)               day
    {dbx}:ev:<id>         stream  one job's events, MAXLEN ~1000; an entry's id is    as the job
                                  the cursor to go on from
    {dbx}:feed            stream  all events but progress, of all jobs; ~10000        permanent
    {dbx}:delayed         zset    ids of jobs that wait for a retry, by due time      permanent
    {dbx}:dead            stream  job, reason: buried after too many crashes; ~1000   permanent
    {dbx}:workers         zset    ids of workers, by when they were last heard        permanent
    {dbx}:worker:<id>     string  WorkerState as JSON                                 given
    {dbx}:control         channel the id of a running job that shall be cancelled     -

An event's entry is job, type, seq (counts per job), at (server time in ms) and body (the event's
other fields as JSON); `decode` makes an Event of it.

Delivery is at least once, and one owner at a time: TAKE gives a job with a fence, BEAT renews the
lease, FINISH and BEAT are refused when the fence has moved on. All workers share one consumer of
one group, because the job's hash knows its owner; so nothing is left behind by dead workers.
Crashes (the worker was lost) and retries (the job failed with an error that may pass) are counted
apart. Never put MAXLEN on a lane (it would drop jobs that run) and never start a group at "$"
(jobs from before the first worker would not be seen).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import QueueFull
from core.protocol import (
    LANES,
    Event,
    Failed,
    Job,
    Lane,
    TerminalEvent,
    WorkerState,
    is_terminal,
    parse_event,
)

T = TypeVar("T")

PREFIX: Final = "{dbx}"
GROUP: Final = "workers"
FEED: Final = f"{PREFIX}:feed"
DELAYED: Final = f"{PREFIX}:delayed"
DEAD: Final = f"{PREFIX}:dead"
WORKERS: Final = f"{PREFIX}:workers"
CONTROL: Final = f"{PREFIX}:control"
START: Final = "0-0"
"""The cursor before a stream's first entry."""

BLOCK_S: Final = 2.0
"""Longest wait in one call; due retries and lost leases are looked for this often."""
SOCKET_TIMEOUT_S: Final = 6.0
"""Must exceed BLOCK_S, or a quiet queue looks like a broken connection."""
_WORKER_FORGOTTEN_S: Final = 3600.0

CLIENT_OPTIONS: Final[dict[str, Any]] = {
    "protocol": 3,
    "legacy_responses": False,
    "decode_responses": True,
    "socket_timeout": SOCKET_TIMEOUT_S,
    "socket_connect_timeout": 3.0,
}
"""For every client of the queue: one shape of replies, and no call that hangs."""

Verdict = Literal["go", "cancel", "lost"]
Outcome = Literal["completed", "cancelled", "failed", "queued", "refused"]
CancelReply = Literal["cancelled", "cancelling", "missing", "completed", "failed"]
Script = Literal["enqueue", "take", "beat", "finish", "cancel", "waiting"]


def lane_key(lane: Lane) -> str:
    """The stream of a lane's jobs."""
    return f"{PREFIX}:q:{lane}"


def job_key(job_id: str) -> str:
    """The hash that holds a job."""
    return f"{PREFIX}:job:{job_id}"


def events_key(job_id: str) -> str:
    """The stream of a job's events."""
    return f"{PREFIX}:ev:{job_id}"


def worker_key(worker_id: str) -> str:
    """The string with a worker's last WorkerState."""
    return f"{PREFIX}:worker:{worker_id}"


PERMANENT: Final = frozenset({*map(lane_key, LANES), FEED, DELAYED, DEAD, WORKERS})
"""Keys that never expire. A job's two keys have no TTL until it ends; all others have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How the queue treats its jobs. Workers and control plane must agree on `lease_s`."""

    lease_s: float = 30.0
    max_crashes: int = 3
    """A job that has cost so many workers is buried."""
    max_retries: int = 2
    """How often a job is run again after a failure that may pass."""
    retry_delay_s: float = 5.0
    """Before the first retry; doubles with each one, up to five minutes."""
    lane_limit: int = 1000

    def delay_ms(self, retries: int) -> int:
        """How long the next retry waits after `retries` earlier ones."""
        return int(1000 * min(300.0, self.retry_delay_s * 2**retries))


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A job that this worker holds until its fence moves on."""

    job: Job
    fence: int
    crashes: int
    retries: int


@cache
def script(name: Script) -> str:
    """A script's source: its flags, the prelude, its own part."""
    folder = resources.files("core") / "lua"
    body = (folder / f"{name}.lua").read_text("utf-8")
    flags, _, rest = body.partition("\n") if body.startswith("#!") else ("#!lua", "", body)
    return f"{flags}\n{(folder / 'prelude.lua').read_text('utf-8')}\n{rest}"


def encode_job(job: Job) -> str:
    """A job as its hash keeps it."""
    return job.model_dump_json()


def encode_event(event: Event) -> str:
    """The body of an event's entry: all but what the script gives it."""
    return event.model_dump_json(exclude={"job_id", "seq", "at", "type"}, exclude_none=True)


def decode(entry: tuple[str, Mapping[str, str]]) -> tuple[str, Event | None]:
    """The cursor and the event of an entry of the feed or of a job's stream.

    The event is None when its type is newer than this version.

    Raises:
        ValidationError: the body lacks what its type needs.
    """
    cursor, fields = entry
    at = datetime.fromtimestamp(int(fields["at"]) / 1000, UTC).isoformat()
    envelope = (
        f'"type":"{fields["type"]}","job_id":"{fields["job"]}","seq":{fields["seq"]},"at":"{at}"'
    )
    inside = fields["body"].strip()[1:-1]
    return cursor, parse_event("{" + envelope + ("," + inside if inside else "") + "}")


def enqueue_args(job: Job, rules: Rules) -> list[str | int]:
    """Arguments of the script `enqueue`."""
    return [job.id, job.lane, encode_job(job), job.attempt, rules.lane_limit]


def enqueued(reply: str, job: Job, rules: Rules) -> bool:
    """What the script `enqueue` said: True when the job is new, False when it was there already.

    Raises:
        QueueFull: the lane holds `lane_limit` jobs.
    """
    if reply == "full":
        raise QueueFull(f"The {job.lane} lane holds {rules.lane_limit} jobs; try again later.")
    return reply == "queued"


def cancel_args(job_id: str, rules: Rules) -> list[str | int]:
    """Arguments of the script `cancel`."""
    return [job_id, int(rules.lease_s * 1000)]


class Queue:
    """A worker's side of the queue. Calls raise redis.ConnectionError while the server is away.

    Args:
        client: made with CLIENT_OPTIONS and without silent retries: a TAKE that is sent twice
            would take two jobs.
        rules: lease, limits and retries.
    """

    def __init__(self, client: redis.Redis, rules: Rules | None = None) -> None:
        self.client: Any = client  # redis-py's types leave the shape of replies open
        self.rules = rules or Rules()
        self._scripts = {
            name: client.register_script(script(name))
            for name in ("enqueue", "take", "beat", "finish", "cancel", "waiting")
        }

    @classmethod
    def connect(cls, url: str, rules: Rules | None = None) -> Queue:
        """A queue on the server at `url` (redis, rediss or unix). Connects on first use."""
        client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **CLIENT_OPTIONS)
        return cls(client, rules)

    def prepare(self) -> None:
        """Make the lanes and their groups where they are missing."""
        for lane in LANES:
            try:
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
            _, spec, fence, attempt, crashes, retries = reply
            job = Job.model_validate_json(spec).model_copy(update={"attempt": attempt})
            return Claim(job=job, fence=fence, crashes=crashes, retries=retries)
        due_ms, tips = reply[1], reply[2:]
        wait_ms = int(min(block_s, BLOCK_S) * 1000)
        if due_ms >= 0:
            wait_ms = min(wait_ms, due_ms)
        if wait_ms > 0:
            streams = dict(zip(map(lane_key, LANES), tips, strict=True))
            self.client.xread(streams, count=1, block=wait_ms)
        return None

    def beat(self, claim: Claim, event: Event | None = None) -> Verdict:
        """Renew the lease and tell an event on the way. "lost": the job is another's now."""
        args: list[str | int] = [claim.job.id, claim.fence]
        if event is not None:
            has_preview = getattr(event, "preview", None) is not None
            args += [event.type, encode_event(event), "1" if has_preview else "0"]
        verdict: Verdict = self._run("beat", *args)
        return verdict

    def finish(self, claim: Claim, event: TerminalEvent) -> Outcome:
        """End a job, or let it wait for a retry when its failure may pass.

        Outputs must be stored before. "refused": it was another's, or had been ended before.
        """
        if isinstance(event, Failed) and event.retryable:
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

    def cancellations(self, timeout_s: float) -> Iterator[str]:
        """Ids of running jobs that shall end, as they are asked for.

        Ends after `timeout_s` without one, so that the caller can look around.
        """
        with self.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(CONTROL)
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                message = channel.get_message(timeout=min(left, BLOCK_S))
                if message is not None:
                    deadline = time.monotonic() + timeout_s
                    yield str(message["data"])

    # --- what others may see ------------------------------------------------------------------

    def announce(self, state: WorkerState, ttl_s: float) -> None:
        """Tell what this worker does; forgotten after `ttl_s` without a further call."""
        now = time.time()
        with self.client.pipeline(transaction=False) as pipe:
            pipe.set(worker_key(state.id), state.model_dump_json(), px=int(ttl_s * 1000))
            pipe.zadd(WORKERS, {state.id: now})
            pipe.zremrangebyscore(WORKERS, "-inf", now - _WORKER_FORGOTTEN_S)
            pipe.execute()

    def workers(self) -> list[WorkerState]:
        """Workers that were heard of lately."""
        ids = self.client.zrange(WORKERS, 0, -1)
        found = self.client.mget([worker_key(worker) for worker in ids]) if ids else []
        return [WorkerState.model_validate_json(raw) for raw in found if raw]

    def waiting(self) -> dict[Lane, int]:
        """How many jobs of each lane wait for a worker, without those that wait for a retry."""
        return dict(zip(LANES, self._run("waiting", "", *LANES)[1:], strict=True))

    def position(self, job_id: str) -> int | None:
        """How many jobs are before a waiting one; None when it doesn't wait in a lane."""
        ahead = int(self._run("waiting", job_id, *LANES)[0])
        return None if ahead < 0 else ahead

    def job(self, job_id: str) -> dict[str, str]:
        """A job's hash; empty when it is unknown."""
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
        return self._scripts[name](args=list(args))
