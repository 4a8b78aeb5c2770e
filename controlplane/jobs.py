"""Jobs: submits, cancels and follows them, and keeps their records.

    submit ──> backend ──events──> record = apply(record, event) ──> store, subscribers

The store is the truth about jobs and the backend is the transport: whenever the backend can be
reached (again), unfinished jobs are followed from where they were, jobs that it has lost are put
in again, and jobs that only it knows get a record.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from controlplane.backends.base import Backend, StoredEvent
from controlplane.records import JobRecord, apply, new_record
from controlplane.store import JobStore
from controlplane.uploads import Uploads
from core.errors import (
    BackendUnavailable,
    InvalidParams,
    ModelMissing,
    NotFound,
    Problem,
    QueueFull,
)
from core.protocol import Event, Job, JobStatus, Lane, Progress
from core.workflows import workflow
from core.workflows.base import Workflow
from core.workflows.params import Params, hints_of

log = logging.getLogger(__name__)

PAGE_MAX: Final = 200
EVENTS_KEPT_JOBS: Final = 10
"""The backend keeps the events of so many ended jobs; the record is what stays of the others."""

Subscriber = Callable[[JobRecord, Event | None], None]
"""Called on the event loop after each change; the event is None when only a cancel was asked for.
It must not block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Some records, newest first; `next` is the cursor of the page after it."""

    jobs: tuple[JobRecord, ...]
    next: str | None


class Jobs:
    """All jobs of this control plane. Methods are called on one event loop.

    Args:
        backend: where they run.
        store: where their records are kept.
        uploads: where their input files are.
    """

    def __init__(self, *, backend: Backend, store: JobStore, uploads: Uploads) -> None:
        self._backend = backend
        self._store = store
        self._uploads = uploads
        self._live: dict[str, JobRecord] = {}
        self._submitting: set[str] = set()
        self._abandoned: set[str] = set()
        self._subscribers: list[Subscriber] = []
        self._adoptions: set[asyncio.Task[None]] = set()
        self._ended: deque[str] = deque()
        self._forgetting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up the unfinished jobs and start the backend."""
        for job_id in self._store.unfinished():
            if record := self._store.get(job_id):
                self._live[job_id] = record
        await self._backend.start(self)

    async def close(self) -> None:
        """Stop following; jobs in other processes go on. All records are on disk afterwards."""
        await self._backend.close()
        for task in (*self._adoptions, self._forgetting):
            if task:
                task.cancel()
        await self._store.close()

    # --- what people and programs ask for ------------------------------------------------------

    async def submit(
        self, workflow_id: str, raw: Mapping[str, Any], lane: Lane = "normal"
    ) -> JobRecord:
        """Check the params, queue the job and return its record.

        Args:
            workflow_id: which workflow.
            raw: its params as sent; what is left out gets its default.
            lane: high before normal before low.

        Raises:
            UnknownWorkflow: no workflow has this id.
            InvalidParams: with one Problem a rejected value; also for an upload that is not here.
            InputRejected: a data: URI that is not a picture or video that we take.
            ModelMissing: no worker has the chosen model's weights.
            QueueFull: the lane is full.
            BackendUnavailable: the backend can't be reached; nothing was submitted.
        """
        recipe = workflow(workflow_id)
        params = recipe.parse(raw, ready=self._ready_models())
        self._check_model(recipe, params.model)
        params = await self._with_uploads(params)
        job = Job(workflow=workflow_id, params=params.model_dump(mode="json"), lane=lane)
        record = self._live[job.id] = new_record(job)
        self._submitting.add(job.id)
        try:
            await self._backend.submit(job)
        except BaseException as error:
            self._live.pop(job.id, None)
            self._submitting.discard(job.id)
            if not isinstance(error, QueueFull):  # it may have arrived all the same
                self._abandoned.add(job.id)
                self.on_found(job.id)
            raise
        self._submitting.discard(job.id)
        record = self._live.get(job.id, record)
        if job.id not in self._store:
            self._store.put(record, "")
        if not self._backend.durable:
            await self._store.flush()
        return record

    async def cancel(self, job_id: str) -> JobRecord:
        """Ask for the job's end; does nothing to one that has ended.

        While the backend is away the wish is kept and passed on later.

        Raises:
            NotFound: no such job.
        """
        record = self.get(job_id)
        if record.finished:
            return record
        if not record.cancel_requested:
            record = record.model_copy(update={"cancel_requested": True})
            self._live[job_id] = record
            self._store.put(record, self._store.cursor(job_id))
            self._tell(record, None)
        try:
            await self._backend.cancel(job_id)
        except BackendUnavailable:
            log.warning("the cancel of job %s waits for the backend", job_id)
        return self.get(job_id)

    def get(self, job_id: str) -> JobRecord:
        """The job as it stands.

        Raises:
            NotFound: no such job.
        """
        record = self._live.get(job_id) or self._store.get(job_id)
        if record is None:
            raise NotFound(f"there is no job {job_id[:64]!r}")
        return record

    def page(
        self, *, limit: int = 50, cursor: str | None = None, status: JobStatus | None = None
    ) -> JobPage:
        """Records, newest first.

        Args:
            limit: at most so many, 1 to PAGE_MAX.
            cursor: `next` of the page before.
            status: only those with this status.
        """
        found = self._store.newest(before=cursor, status=status)
        ids = list(islice(found, max(1, min(limit, PAGE_MAX)) + 1))
        more = len(ids) > limit
        jobs = tuple(self.get(job_id) for job_id in ids[:limit])
        return JobPage(jobs=jobs, next=ids[limit - 1] if more else None)

    def unfinished(self) -> tuple[JobRecord, ...]:
        """All jobs that have not ended, oldest first."""
        return tuple(self._live[job_id] for job_id in sorted(self._live))

    async def events(self, job_id: str, after: str = "") -> list[StoredEvent]:
        """What the backend still has of a job's events after a cursor, oldest first.

        Raises:
            NotFound: no such job.
            BackendUnavailable: the backend can't be reached.
        """
        self.get(job_id)
        return await self._backend.events(job_id, after)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` called after each change of any job; returns what ends that."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    async def follow(self, job_id: str) -> AsyncIterator[JobRecord]:
        """The record now and after each change, until the job has ended.

        A slow reader gets the newest record, not each one.

        Raises:
            NotFound: no such job.
        """
        changed = asyncio.Event()

        def note(record: JobRecord, _: Event | None) -> None:
            if record.id == job_id:
                changed.set()

        with self._subscribed(note):
            while True:
                record = self.get(job_id)
                yield record
                if record.finished:
                    return
                await changed.wait()
                changed.clear()

    # --- what the backend tells (Listener) -----------------------------------------------------

    def on_event(self, job_id: str, cursor: str, event: Event) -> None:
        """Bring the record up to date and tell the subscribers."""
        before = self._live.get(job_id)
        if before is None:
            return
        record = apply(before, event)
        if record.finished:
            del self._live[job_id]
        else:
            self._live[job_id] = record
        # Progress is not worth a write; after a restart it is simply delivered again.
        if not isinstance(event, Progress):
            self._store.put(record, cursor)
        self._tell(record, event)
        if record.finished:
            self._ended.append(job_id)
            self._forget_soon()

    def on_found(self, job_id: str) -> None:
        """Give a job that somebody else put in a record, and follow it."""
        if job_id in self._live or job_id in self._store or job_id in self._submitting:
            return
        adoption = asyncio.get_running_loop().create_task(self._adopt(job_id))
        self._adoptions.add(adoption)
        adoption.add_done_callback(self._adopted)

    async def on_connected(self) -> None:
        """Bring our records and the backend's jobs together."""
        known = await self._backend.job_ids()
        for record in self.unfinished():
            if record.id in self._submitting:
                continue
            if record.id in known:
                await self._backend.follow(record.id, self._store.cursor(record.id))
            else:
                await self._submit_again(record)
            if record.cancel_requested:
                await self._backend.cancel(record.id)
        self._abandoned &= known
        self._ended = deque(job_id for job_id in sorted(known) if self._store.ended(job_id))
        self._forget_soon()
        for job_id in sorted(known):
            self.on_found(job_id)

    def _forget_soon(self) -> None:
        if len(self._ended) > EVENTS_KEPT_JOBS and self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().create_task(self._forget_oldest())

    async def _forget_oldest(self) -> None:
        """Have the backend drop what is on disk here, so that it holds no more than it must."""
        try:
            while len(self._ended) > EVENTS_KEPT_JOBS:
                oldest = set(islice(self._ended, len(self._ended) - EVENTS_KEPT_JOBS))
                await self._store.saved()  # not flush(): that writes the whole file for each job
                await self._backend.forget(oldest)
                self._ended = deque(job_id for job_id in self._ended if job_id not in oldest)
        except BackendUnavailable as error:
            log.warning("ended jobs stay in the backend for now: %s", error)
        finally:
            self._forgetting = None

    async def _submit_again(self, record: JobRecord) -> None:
        """The backend has lost the job, so it begins anew."""
        log.warning("job %s is put in again: the backend does not know it", record.id)
        fresh = new_record(record.job())
        fresh = fresh.model_copy(update={"cancel_requested": record.cancel_requested})
        self._live[record.id] = fresh
        self._store.put(fresh, "")
        try:
            await self._backend.submit(record.job())
        except QueueFull:
            log.warning("the lane of job %s is full; it is tried at the next start", record.id)

    async def _adopt(self, job_id: str) -> None:
        job = await self._backend.job(job_id)
        if job_id in self._abandoned:
            if job is not None:
                await self._backend.cancel(job_id)
            return
        if job is None or job_id in self._live or job_id in self._store:
            return
        record = self._live[job_id] = new_record(job)
        self._store.put(record, "")
        await self._backend.follow(job_id)

    def _adopted(self, adoption: asyncio.Task[None]) -> None:
        self._adoptions.discard(adoption)
        if not adoption.cancelled() and (error := adoption.exception()):
            # Found again at the next connect.
            log.warning("a found job can't be followed", exc_info=error)

    # --- checks --------------------------------------------------------------------------------

    def _ready_models(self) -> frozenset[str]:
        return frozenset(model for worker in self._backend.workers() for model in worker.models)

    def _check_model(self, recipe: Workflow[Any], model_id: str) -> None:
        """Say now, not after the wait in the queue, that nobody can run the job."""
        workers = self._backend.workers()
        settled = workers and all(worker.state != "starting" for worker in workers)
        row = next((row for row in recipe.models if row.id == model_id), None)
        if not settled or row is None or row.demo or model_id in self._ready_models():
            return
        message = f"model {model_id!r} is on no worker: download its weights, then try again"
        raise ModelMissing(message, problems=(Problem(field="model", message=message),))

    async def _with_uploads(self, params: Params) -> Params:
        """Params whose uploads are here and whose data: URIs have become uploads."""
        problems: list[Problem] = []
        refs: dict[str, str] = {}
        for field, ref in params.file_refs().items():
            kind, _, rest = ref.partition(":")
            if kind == "https":
                continue  # fetched by the worker, behind its guard
            if kind == "data":
                upload = await self._uploads.add_data_uri(field, ref)
                refs[field] = upload.ref
            elif (found := self._uploads.find(rest)) is None:
                message = f"{field}: upload {rest[:12]}… is not here: upload it again"
                problems.append(Problem(field=field, message=message))
                continue
            else:
                upload = found
            wanted = hints_of(type(params).model_fields[field]).get("widget")
            if upload.kind != wanted:
                message = f"{field}: the file is a {upload.kind}, not a {wanted}"
                problems.append(
                    Problem(field=field, message=message.replace("a image", "an image"))
                )
        if problems:
            raise InvalidParams("; ".join(p.message for p in problems), problems=tuple(problems))
        return params.model_copy(update=refs) if refs else params

    # --- subscribers ---------------------------------------------------------------------------

    def _tell(self, record: JobRecord, event: Event | None) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(record, event)
            except Exception:
                log.exception("a subscriber failed")  # the others and the reader must go on

    @contextmanager
    def _subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        unsubscribe = self.subscribe(subscriber)
        try:
            yield
        finally:
            unsubscribe()
