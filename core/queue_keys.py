"""Valkey's layout: keys, scripts, and what their arguments and entries mean.

Shared by core.queue (workers) and the control plane's asyncio client.

    key                   type    content                                            TTL
    {dbx}:q:<lane>        stream  job=<id>; one group; an entry goes when its job     permanent
                                  ends or waits for a retry, so XLEN is what
                                  waits and what runs
    {dbx}:job:<id>        hash    spec (Job as JSON) status lane entry attempt        none until it
                                  crashes retries fence owner cancel seq preview      ends, then a
                                  swept; plan (as JSON, once it was steered)          30 days
                                  plan_rev ("" without a plan);
                                  queued_at started_at finished_at (ms)
    {dbx}:ev:<id>         stream  one job's events; an entry's id is the cursor to    as the job
                                  go on from. Beyond ~1000 the oldest progress
                                  goes, all else beyond ~10000
    {dbx}:feed            stream  types of all events but progress; ~100             permanent
    {dbx}:delayed         zset    ids of jobs that wait for a retry, by due time      permanent
    {dbx}:dead            stream  job, reason: buried after too many crashes; ~1000   permanent
    {dbx}:workers         zset    ids of workers, by when they were last heard        permanent
    {dbx}:worker:<id>     string  WorkerState as JSON                                 given
    {dbx}:pulse           string  when a worker last asked for a job (ms)             permanent
    {dbx}:calm            string  there after an outage: no lease is taken away       lease + 1 s
    {dbx}:control         channel "cancel <job>", "steer <job> <rev of its plan>"     -
                                  for the owner of a running job

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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import redis

from core.errors import BackendUnavailable, QueueFull
from core.protocol import LANES, Event, Job, Lane, Plan, parse_event

PREFIX: Final = "{dbx}"
GROUP: Final = "workers"
FEED: Final = f"{PREFIX}:feed"
PULSE: Final = f"{PREFIX}:pulse"
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
SteerReply = Literal["steered", "stale", "missing", "completed", "failed", "cancelled"]
Script = Literal["enqueue", "take", "beat", "finish", "cancel", "steer", "forget"]


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


PERMANENT: Final = frozenset({*map(lane_key, LANES), FEED, DELAYED, DEAD, WORKERS, PULSE})
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


@contextmanager
def reaching_server() -> Iterator[None]:
    """Around calls to the server: what only time can mend becomes one error.

    Raises:
        BackendUnavailable: the server is away, loads its data, or can't write.
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise BackendUnavailable(f"The queue can't be reached: {error}") from error
    except redis.ResponseError as error:
        if isinstance(error, redis.OutOfMemoryError) or str(error).startswith("MISCONF"):
            raise BackendUnavailable(f"The queue can't write: {error}") from error
        raise


@cache
def script(name: Script) -> str:
    """A script's source: its flags, the prelude, its own part."""
    folder = resources.files("core") / "lua"
    body = (folder / f"{name}.lua").read_text("utf-8")
    flags, _, rest = body.partition("\n") if body.startswith("#!") else ("#!lua", "", body)
    return f"{flags}\n{(folder / 'prelude.lua').read_text('utf-8')}\n{rest}"


def encode_job(job: Job) -> str:
    """A job as its hash keeps it; the plan that it came with is part of it."""
    return job.model_dump_json()


def decode_job(spec: str, plan: str | None) -> Job:
    """A job from its hash, with the newest plan: `plan` is None or "" where it was not steered."""
    job = Job.model_validate_json(spec)
    if not plan:
        return job
    return job.model_copy(update={"plan": Plan.model_validate_json(plan)})


def encode_event(event: Event) -> str:
    """The body of an event's entry: all but what the script gives it."""
    return event.model_dump_json(exclude={"job_id", "seq", "at", "type"}, exclude_none=True)


def decode(entry: tuple[str, Mapping[str, str]]) -> tuple[str, Event | None]:
    """The cursor and the event of an entry of a job's stream.

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
    rev = "" if job.plan is None else job.plan.rev
    return [job.id, job.lane, encode_job(job), job.attempt, rev, rules.lane_limit]


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


def steer_args(job_id: str, plan: Plan, expected_rev: int) -> list[str | int]:
    """Arguments of the script `steer`."""
    return [job_id, expected_rev, plan.model_dump_json(), plan.rev]
