"""The WebSocket /ws: what happens to jobs, as it happens.

    client → {"type": "subscribe", "job_ids": ["…"]}       ["*"] is all jobs; unsubscribe likewise
    server → {"type": "job:snapshot", "jobs": [JobRecord…]}                  the state, then changes
             job:queued  job:started  job:progress  job:clip  job:steered  job:requeued
             job:complete  job:error  job:cancelled

A snapshot of all jobs leaves their clips out: who wants them subscribes to the job. A clip takes
the place of the one with its index and of all after it, but for the same one told again.

The state lives on the server: whoever connects again subscribes again and gets a snapshot. A slow
client holds up nobody: of its unsent progress only the newest is kept, and when too much else
waits, all of it gives way to a snapshot.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from controlplane.jobs import Jobs
from controlplane.records import JobRecord, listed, shown
from core.errors import NotFound
from core.protocol import (
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Progress,
    Queued,
    Requeued,
    Started,
    Steered,
)

ALL: Final = "*"
SNAPSHOT_JOBS: Final = 50
"""A snapshot of all jobs has the newest ones, and all that have not ended."""
_PENDING_MAX: Final = 200
_SUBSCRIBED_MAX: Final = 1000

Message = dict[str, Any]


def events_router(jobs: Jobs) -> APIRouter:
    """The route /ws."""
    router = APIRouter()
    clients: set[Client] = set()

    def spread(record: JobRecord, event: Event | None) -> None:
        interested = [client for client in clients if client.wants(record.id)]
        if interested:
            message = message_for(record, event)
            for client in interested:
                client.push(record.id, message)

    jobs.subscribe(spread)

    @router.websocket("/ws")
    async def connect(socket: WebSocket) -> None:
        await socket.accept()
        client = Client(jobs)
        clients.add(client)
        sending = asyncio.create_task(client.send_to(socket))
        try:
            await _receive(socket, client)
        finally:
            clients.discard(client)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    return router


async def _receive(socket: WebSocket, client: Client) -> None:
    """Take subscriptions until the client is gone."""
    while True:
        try:
            raw = orjson.loads(await socket.receive_text())
        except WebSocketDisconnect:
            return
        except (orjson.JSONDecodeError, KeyError):  # KeyError: a binary message
            raw = None
        client.hear(raw)


class Client:
    """One connection: what it wants, and what it has not been sent yet."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._ids: set[str] = set()
        self._all = False
        self._snapshot_of: set[str] = set()
        # By job for progress, which gives way to newer progress; by number for all else.
        self._pending: OrderedDict[str | int, Message] = OrderedDict()
        self._numbers = count()
        self._wake = asyncio.Event()

    def wants(self, job_id: str) -> bool:
        """Whether it has subscribed to the job."""
        return self._all or job_id in self._ids

    def hear(self, raw: object) -> None:
        """Take a message of the client; a wrong one is answered with an error."""
        match raw:
            case {"type": "subscribe" | "unsubscribe" as kind, "job_ids": list(ids)} if _are_ids(
                ids
            ):
                (self._subscribe if kind == "subscribe" else self._unsubscribe)(set(ids))
            case _:
                text = "send {type: subscribe | unsubscribe, job_ids: [id or '*', at most 1000]}"
                self._put({"type": "error", "code": "bad_request", "error": text})

    def push(self, job_id: str, message: Message) -> None:
        """Have a message sent as soon as the client takes it."""
        if message["type"] == "job:progress":
            waiting = self._pending.get(job_id)
            if waiting and "preview" in waiting:
                message = {"preview": waiting["preview"], **message}
            self._pending[job_id] = message
            self._wake.set()
            return
        # Progress after this message must not take the place of progress before it.
        if (before := self._pending.pop(job_id, None)) is not None:
            self._pending[next(self._numbers)] = before
        self._put(message)

    async def send_to(self, socket: WebSocket) -> None:
        """Send for ever; ends with the connection, by an exception or by being cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self.next_message()) is not None:
                await socket.send_text(orjson.dumps(message).decode())

    def _subscribe(self, ids: set[str]) -> None:
        self._all = self._all or ALL in ids
        self._ids |= ids - {ALL}
        while len(self._ids) > _SUBSCRIBED_MAX:
            self._ids.pop()
        self._snapshot_of |= ids
        self._wake.set()

    def _unsubscribe(self, ids: set[str]) -> None:
        self._all = self._all and ALL not in ids
        self._ids -= ids

    def _put(self, message: Message) -> None:
        self._pending[next(self._numbers)] = message
        if len(self._pending) > _PENDING_MAX:
            self._pending.clear()
            self._snapshot_of |= self._ids | ({ALL} if self._all else set())
        self._wake.set()

    def next_message(self) -> Message | None:
        """What is sent next, None when nothing waits; it counts as sent."""
        if self._snapshot_of:
            wanted, self._snapshot_of = self._snapshot_of, set()
            return snapshot(self._jobs, wanted)
        return self._pending.popitem(last=False)[1] if self._pending else None


def snapshot(jobs: Jobs, wanted: Iterable[str]) -> Message:
    """The state of some jobs, newest first; ids that are not known are left out."""
    found: dict[str, Message] = {}
    for job_id in sorted(wanted):  # "*" comes first: what is named itself is shown whole
        if job_id == ALL:
            recent = jobs.page(limit=SNAPSHOT_JOBS).jobs
            found.update((record.id, listed(record)) for record in (*recent, *jobs.unfinished()))
            continue
        try:
            found[job_id] = _dump(jobs.get(job_id))
        except NotFound:
            continue
    return {"type": "job:snapshot", "jobs": [found[job_id] for job_id in sorted(found)[::-1]]}


def message_for(record: JobRecord, event: Event | None) -> Message:
    """An event as the protocol has it; a change without one is a snapshot of its job."""
    if event is None:
        return {"type": "job:snapshot", "jobs": [_dump(record)]}
    seen = {"job_id": record.id, "seq": event.seq}
    match event:
        case Progress():
            message = _progress(event)
        case Completed():
            message = {"type": "job:complete", **_complete(record), "metrics": event.metrics}
        case Failed():
            message = {
                "type": "job:error",
                "error": event.message,
                "code": event.code,
                "retryable": event.retryable,
                "field": event.field,
            }
        case Queued():
            message = {"type": "job:queued", "job": _dump(record)}
        case Clip():
            message = shown(event) | {"type": "job:clip"}
        case Requeued():
            message = {"type": "job:requeued", "reason": event.reason}
        case Cancelled():
            message = {"type": "job:cancelled"}
        case Steered():
            message = {"type": "job:steered", "plan": event.plan.model_dump(mode="json")}
        case Started():
            message = {"type": "job:started", "worker": event.worker, "attempt": event.attempt}
    return message | seen


def _are_ids(values: list[Any]) -> bool:
    return len(values) <= _SUBSCRIBED_MAX and all(
        isinstance(value, str) and len(value) <= 64 for value in values
    )


def stage_text(event: Progress) -> str:
    """For people: "Denoising step 23/50"."""
    name = event.stage.value.capitalize()
    return f"{name} step {event.step}/{event.steps}" if event.steps else name


def _progress(event: Progress) -> Message:
    message: Message = {
        "type": "job:progress",
        "progress": event.fraction,
        "stage": stage_text(event),
        "stage_id": event.stage.value,
        "step": event.step,
        "steps": event.steps,
        "eta_s": event.eta_s,
        "clip": event.clip,
    }
    return message | ({"preview": event.preview} if event.preview else {})


def _complete(record: JobRecord) -> Message:
    """The outputs; `output` is the first video, or else the first picture."""
    videos = [artifact for artifact in record.artifacts if artifact.kind == "video"]
    main = (videos or list(record.artifacts))[:1]
    output = [{"type": a.kind, "path": a.url, "frames": a.frames} for a in main]
    return {
        "output": output[0] if output else None,
        "artifacts": [artifact.model_dump(mode="json") for artifact in record.artifacts],
    }


def _dump(record: JobRecord) -> Message:
    return record.model_dump(mode="json")
