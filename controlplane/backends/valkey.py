"""Jobs run on workers that take them from a Valkey queue (core/queue.py).

    submit, cancel, steer ──> scripts              one connection pool
    events <── XREAD over the feed and the streams of followed jobs   one connection

One reader serves all followed jobs. The feed is its doorbell: an entry there wakes the blocked
read, shows jobs that others put in, and brings back the streams of jobs that were set aside
because they only wait. While the server is away the reader knocks with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import redis.asyncio as redis
from pydantic import ValidationError
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import RedisError

from controlplane.backends.base import Listener, StoredEvent
from core.errors import BackendUnavailable
from core.protocol import (
    LANES,
    Event,
    Job,
    Lane,
    Plan,
    Queued,
    Requeued,
    WorkerState,
    is_terminal,
)
from core.queue_keys import (
    BLOCK_S,
    CLIENT_OPTIONS,
    FEED,
    PREFIX,
    START,
    WORKERS,
    Rules,
    SteerReply,
    cancel_args,
    decode,
    decode_job,
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

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_WORKERS_EVERY_S: Final = 1.0
_READ_COUNT: Final = 500
_ACTIVE_MAX: Final = 64
"""Streams that are read at once without need; beyond it, those of waiting jobs are set aside."""
_JOB_PREFIX: Final = f"{PREFIX}:job:"
_EVENTS_PREFIX: Final = f"{PREFIX}:ev:"


class ValkeyBackend:
    """The backend on a Valkey queue.

    Args:
        url: redis, rediss or unix address of the server.
        rules: lane limit and lease, as the workers have them.
    """

    durable = True

    def __init__(self, url: str, rules: Rules) -> None:
        self._rules = rules
        # Scripts are idempotent, so a lost reply is asked for again; a read is not repeated
        # silently, or its reply could be lost.
        retry = Retry(ConstantBackoff(0.05), 2)
        self._client: Any = redis.Redis.from_url(url, retry=retry, **CLIENT_OPTIONS)
        self._reading: Any = redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), **CLIENT_OPTIONS
        )
        self._enqueue = self._client.register_script(script("enqueue"))
        self._cancel = self._client.register_script(script("cancel"))
        self._steer = self._client.register_script(script("steer"))
        self._forget = self._client.register_script(script("forget"))
        self._active: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._feed = START
        self._workers: tuple[WorkerState, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._reachable = False

    @property
    def reachable(self) -> bool:
        """Whether the server answered last time."""
        return self._reachable

    async def start(self, listener: Listener) -> None:
        """Begin reading; the server need not be there yet."""
        self._listener = listener
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._watch_workers())]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """End reading and close all connections."""
        running = set(self._tasks)
        while running:
            # More than once: redis-py was seen to lose a cancel that came together with a reply.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.2)
        await self._client.aclose()
        await self._reading.aclose()

    async def submit(self, job: Job) -> None:
        """Enqueue the job in one call, and follow it.

        Raises:
            QueueFull: the lane holds as many jobs as it may.
            BackendUnavailable: the server is away or refuses writes.
        """
        # Before the call, so that the reader does not take it for somebody else's.
        self._active[job.id] = START
        self._waiting.pop(job.id, None)
        try:
            reply = await self._ask(self._enqueue(args=enqueue_args(job, self._rules)))
            enqueued(reply, job, self._rules)
        except BaseException:
            self._active.pop(job.id, None)
            raise

    async def cancel(self, job_id: str) -> None:
        """End a waiting job now, ask the owner of a running one."""
        await self._ask(self._cancel(args=cancel_args(job_id, self._rules)))

    async def steer(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Change the plan of a waiting or running job; the owner of a running one hears of it."""
        reply: SteerReply = await self._ask(
            self._steer(args=steer_args(job_id, plan, expected_rev))
        )
        return reply

    async def follow(self, job_id: str, after: str = "") -> None:
        """Deliver what the job's stream has after a cursor, and read it from then on."""
        if job_id in self._active or job_id in self._waiting:
            return
        cursor = self._active[job_id] = after or START
        # The read that is under way does not look at this stream yet and may wait for long.
        entries = await self._ask(self._client.xrange(events_key(job_id), f"({cursor}", "+"))
        if entries and self._active.get(job_id) == cursor:
            self._on_stream(job_id, entries)

    async def events(self, job_id: str, after: str = "", limit: int = 1000) -> list[StoredEvent]:
        """The job's stream after a cursor."""
        low = f"({after}" if _is_cursor(after) else "-"
        entries = await self._ask(self._client.xrange(events_key(job_id), low, "+", count=limit))
        return [StoredEvent(cursor=c, event=e) for c, e in _decoded(entries) if e is not None]

    async def job_ids(self) -> set[str]:
        """All jobs whose hash is there; finished ones stay for 30 days."""
        found: set[str] = set()
        cursor = 0
        while True:
            cursor, keys = await self._ask(
                self._client.scan(cursor, match=f"{_JOB_PREFIX}*", count=500)
            )
            found.update(key.removeprefix(_JOB_PREFIX) for key in keys)
            if int(cursor) == 0:
                return found

    async def job(self, job_id: str) -> Job | None:
        """The job as its hash keeps it."""
        spec, plan = await self._ask(self._client.hmget(job_key(job_id), "spec", "plan"))
        return None if spec is None else decode_job(spec, plan)

    async def forget(self, job_ids: Collection[str]) -> None:
        """Delete their hashes and streams, which would otherwise stay for 30 days."""
        if job_ids:
            await self._ask(self._forget(args=list(job_ids)))

    def workers(self) -> tuple[WorkerState, ...]:
        """As told within the last second."""
        return self._workers if self._reachable else ()

    async def queue_lengths(self) -> dict[Lane, int]:
        """Jobs in each lane, waiting and running."""
        async with self._client.pipeline(transaction=False) as pipe:
            for lane in LANES:
                pipe.xlen(lane_key(lane))
            lengths = await self._ask(pipe.execute())
        return dict(zip(LANES, lengths, strict=True))

    async def _ask(self, call: Awaitable[Any]) -> Any:
        with reaching_server():
            return await call

    # --- the reader ----------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read for ever; connect again when the connection is lost."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._connect()
                pause_s = _FIRST_PAUSE_S
                while True:
                    await self._read_once()
            except (RedisError, BackendUnavailable) as error:
                if self._reachable:
                    log.warning("the queue is away: %s", error)
                self._reachable = False
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """These tasks run until they are cancelled; anything else is a bug and must be seen."""
        if not task.cancelled() and (error := task.exception()):
            self._reachable = False
            log.critical("the queue is not read any more", exc_info=error)

    async def _connect(self) -> None:
        """Find the feed's end, then have records and jobs brought together."""
        newest = await self._reading.xrevrange(FEED, count=1)
        self._feed = newest[0][0] if newest else START
        self._workers = await self._announced()
        self._reachable = True
        # What happened meanwhile did not ring.
        self._active.update(self._waiting)
        self._waiting.clear()
        await self._listener.on_connected()
        log.info("the queue is connected")

    async def _read_once(self) -> None:
        streams = {FEED: self._feed}
        streams.update((events_key(job_id), cursor) for job_id, cursor in self._active.items())
        reply = await self._reading.xread(streams, count=_READ_COUNT, block=int(BLOCK_S * 1000))
        for key, entries in (reply or {}).items():
            if key == FEED:
                self._on_feed(entries)
            else:
                self._on_stream(key.removeprefix(_EVENTS_PREFIX), entries)

    def _on_feed(self, entries: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        for cursor, fields in entries:
            self._feed = cursor
            job_id = fields["job"]
            if job_id in self._waiting:
                self._active[job_id] = self._waiting.pop(job_id)
            elif job_id not in self._active:
                self._listener.on_found(job_id)

    def _on_stream(self, job_id: str, entries: list[tuple[str, Mapping[str, str]]]) -> None:
        if job_id not in self._active:  # given up while the read was under way
            return
        event: Event | None = None
        for cursor, event in _decoded(entries):
            self._active[job_id] = cursor
            if event is not None:
                self._listener.on_event(job_id, cursor, event)
        if is_terminal(event):
            del self._active[job_id]
        elif isinstance(event, Queued | Requeued) and len(self._active) > _ACTIVE_MAX:
            self._waiting[job_id] = self._active.pop(job_id)

    # --- workers -------------------------------------------------------------------------------

    async def _watch_workers(self) -> None:
        while True:
            await asyncio.sleep(_WORKERS_EVERY_S)
            if self._reachable:
                with suppress(RedisError):  # the reader sees it, too, and says so
                    self._workers = await self._announced()

    async def _announced(self) -> tuple[WorkerState, ...]:
        ids = await self._client.zrange(WORKERS, 0, -1)
        raw = await self._client.mget([worker_key(worker) for worker in ids]) if ids else []
        return tuple(filter(None, map(_worker, filter(None, raw))))


def _decoded(
    entries: Iterable[tuple[str, Mapping[str, str]]],
) -> Iterable[tuple[str, Event | None]]:
    for entry in entries:
        try:
            yield decode(entry)
        except (ValidationError, KeyError, ValueError):
            log.exception("an event of the queue can't be read")
            yield entry[0], None


def _worker(raw: str) -> WorkerState | None:
    try:
        return WorkerState.model_validate_json(raw)
    except ValidationError:
        log.exception("a worker's state can't be read")
        return None


def _is_cursor(text: str) -> bool:
    head, _, tail = text.partition("-")
    return head.isdecimal() and tail.isdecimal()
