"""Jobs: submits, cancels, steers and follows them, and keeps their records.

    submit ──> backend ──events──> record = apply(record, event) ──> store, subscribers

The store is the truth about jobs and the backend is the transport: whenever the backend can be
reached (again), unfinished jobs are followed from where they were, jobs that it has lost are put
in again, and jobs that only it knows get a record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Any, Final, cast

from controlplane.backends.base import Backend, StoredEvent
from controlplane.checks import check_clip, checked
from controlplane.forgetting import Forgetting
from controlplane.records import JobPage, JobRecord, apply, new_record, restarted
from controlplane.store import JobStore
from controlplane.subscribers import Subscriber, Subscribers
from controlplane.uploads import Uploads
from core.errors import BackendUnavailable, DiffboxError, NotFound, QueueFull
from core.lora import LoraShelf
from core.protocol import Cancelled, Event, Job, JobStatus, Lane, Plan, Progress, Steered
from core.queue_keys import SteerReply
from core.storage import storage_failed
from core.workflows import workflow

log = logging.getLogger(__name__)

PAGE_MAX: Final = 200


class Jobs:
    """All jobs of this control plane. Methods are called on one event loop.

    Args:
        backend: where they run.
        store: where their records are kept.
        uploads: where their input files are.
        loras: the LoRA files of this machine.
        retry_s: how often the backend is asked again for what it could not do at once. At most
            a third of the lease: core/lua/prelude.lua takes a longer silence for an outage.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        store: JobStore,
        uploads: Uploads,
        loras: LoraShelf,
        retry_s: float = 10.0,
    ) -> None:
        self._backend = backend
        self._store = store
        self._uploads = uploads
        self._loras = loras
        self._live: dict[str, JobRecord] = {}
        self._submitting: set[str] = set()
        self._abandoned: set[str] = set()
        self._subscribers = Subscribers()
        self._adoptions: set[asyncio.Task[None]] = set()
        self._postponed: set[str] = set()
        self._forgetting = Forgetting(backend, store)
        self._retry_s = retry_s
        self._retrying: asyncio.Task[None] | None = None
        # Both ways of asking the backend again, or one job could be put in by both at once.
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        """Take up the unfinished jobs and start the backend."""
        for job_id in self._store.unfinished():
            if record := self._store.get(job_id):
                self._live[job_id] = record
        await asyncio.to_thread(self._uploads.sweep)
        await self._backend.start(self)
        self._retrying = asyncio.get_running_loop().create_task(self._retry())

    async def close(self) -> None:
        """Stop following; jobs in other processes go on. All records are on disk afterwards."""
        if self._retrying:
            self._retrying.cancel()
        await self._backend.close()
        self._forgetting.close()
        for task in self._adoptions:
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
            InvalidParams, InputRejected, ModelMissing: as `checked` does.
            QueueFull: the lane is full.
            BackendUnavailable: the backend can't be reached; nothing was submitted.
            StorageFailed: the record is all that keeps the job, and it can't be written.
        """
        recipe = workflow(workflow_id)
        workers = self._backend.workers()
        params = await checked(recipe, raw, workers, self._uploads, self._loras)
        check_clip(recipe, params, self.get)
        job = Job(
            workflow=workflow_id,
            params=params.model_dump(mode="json"),
            lane=lane,
            plan=recipe.plan(params),
        )
        record = self._live[job.id] = new_record(job)
        self._submitting.add(job.id)
        try:
            await self._backend.submit(job)
        except BaseException as error:
            self._submitting.discard(job.id)
            if isinstance(error, QueueFull):
                self._live.pop(job.id, None)
            else:  # it may have arrived all the same
                self._abandon(job.id)
            raise
        self._submitting.discard(job.id)
        record = self._live.get(job.id, record)
        if job.id not in self._store:
            self._store.put(record, "")
        if not self._backend.durable:
            await self._keep(job.id)
        return record

    async def _keep(self, job_id: str) -> None:
        try:
            await self._store.flush()
        except OSError as error:
            await self._backend.cancel(job_id)  # the sender is told no, and would send it again
            raise storage_failed(error, self._store.folder) from error

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
            self._note_cancel(record)
        try:
            await self._backend.cancel(job_id)
            if job_id in self._postponed:
                self._end_unknown(job_id)
        except BackendUnavailable:
            log.warning("the cancel of job %s waits for the backend", job_id)
        return self.get(job_id)

    async def steer(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Have the job make the clips of another plan; what may be changed is checked before.

        "stale": its plan is not at `expected_rev` any more; else how it had ended.

        Raises:
            NotFound: no such job.
            BackendUnavailable: the backend can't be reached; the plan stays as it was.
        """
        self.get(job_id)
        reply = await self._backend.steer(job_id, plan, expected_rev)
        if reply == "missing":
            async with self._asking:  # so that it is not put in again with the old plan meanwhile
                reply = await self._backend.steer(job_id, plan, expected_rev)
                if reply == "missing":
                    return self._steer_unknown(job_id, plan, expected_rev)
        record = self._live.get(job_id)
        if reply == "steered" and record is not None:
            # Not with the event: who is told that it is done may send the next change at once.
            record = apply(record, Steered(job_id=job_id, plan=plan, seq=record.seq))
            self._live[job_id] = record
            self._store.put(record, self._store.cursor(job_id))
        return reply

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
        return self._subscribers.add(subscriber)

    def follow(self, job_id: str) -> AsyncIterator[JobRecord]:
        """The record now and after each change, until the job has ended.

        A slow reader gets the newest record, not each one.

        Raises:
            NotFound: no such job.
        """
        return self._subscribers.follow(job_id, self.get)

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
        self._subscribers.tell(record, event)
        if record.finished:
            self._postponed.discard(job_id)
            self._forgetting.add(job_id)

    def on_found(self, job_id: str) -> None:
        """Give a job that somebody else put in a record, and follow it."""
        ours = job_id in self._live or job_id in self._store or job_id in self._submitting
        if ours and job_id not in self._abandoned:
            return
        adoption = asyncio.get_running_loop().create_task(self._adopt(job_id))
        self._adoptions.add(adoption)
        adoption.add_done_callback(self._adopted)

    async def on_connected(self) -> None:
        """Bring our records and the backend's jobs together."""
        async with self._asking:
            # Before the look: what is submitted meanwhile is not in the answer.
            followed = sorted(self._live.keys() - self._submitting)
            abandoned = frozenset(self._abandoned)
            known = await self._backend.job_ids()
            for job_id in followed:
                # Each time from _live: a job may end or be cancelled while we ask.
                if job_id in known:
                    await self._follow(job_id)
                else:
                    await self._submit_again(job_id)
                await self._pass_cancel_on(job_id)
        for job_id in filter(self._store.ended, sorted(known)):
            # The backend may have lost its last second, and would run the job again over its
            # outputs. One that ended there too stays as it is.
            await self._backend.cancel(job_id)
        self._abandoned -= abandoned - known
        self._forgetting.replace(filter(self._store.ended, sorted(known)))
        for job_id in sorted(known):
            self.on_found(job_id)

    async def _retry(self) -> None:
        """Ask again, for ever: a worker may have died with a cancel, a full lane has room again."""
        while True:
            await asyncio.sleep(self._retry_s)
            if not self._backend.reachable:
                continue
            try:
                async with self._asking:
                    for job_id in sorted(self._postponed):
                        await self._submit_again(job_id)
                    for record in self.unfinished():
                        await self._pass_cancel_on(record.id)
            except BackendUnavailable as error:
                log.warning("what the backend could not do is asked of it later: %s", error)
            except Exception:
                log.exception("asking the backend again failed")

    async def _follow(self, job_id: str) -> None:
        if job_id in self._live:
            await self._backend.follow(job_id, self._store.cursor(job_id))

    async def _pass_cancel_on(self, job_id: str) -> None:
        record = self._live.get(job_id)
        if record is not None and record.cancel_requested and job_id not in self._submitting:
            await self._follow(job_id)
            await self._backend.cancel(job_id)

    async def _submit_again(self, job_id: str) -> None:
        """The backend has lost the job, so it goes in again; one that shall be cancelled ends."""
        record = self._live.get(job_id)
        if record is None:
            return
        if record.cancel_requested:
            await self._backend.cancel(job_id)  # it may have arrived without an answer
            self._end_unknown(job_id)
            return
        fresh = restarted(record)
        if fresh != record:
            self._live[job_id] = fresh
            self._store.put(fresh, "")
            self._subscribers.tell(fresh, None)
        self._postponed.discard(job_id)
        try:
            await self._backend.submit(fresh.job())
        except DiffboxError as error:
            self._postponed.add(job_id)
            if not isinstance(error, QueueFull):
                raise
            log.warning("job %s waits until its lane has room", job_id)
        else:
            log.warning("job %s was put in again: the backend did not know it", job_id)

    def _end_unknown(self, job_id: str) -> None:
        """End a cancelled job that the backend does not have, so nobody else will."""
        if record := self._live.get(job_id):
            ended = Cancelled(job_id=job_id, seq=record.seq + 1)
            self.on_event(job_id, self._store.cursor(job_id), ended)

    def _steer_unknown(self, job_id: str, plan: Plan, expected_rev: int) -> SteerReply:
        """Change the plan of a job that the backend has lost and that waits to be put in again."""
        record = self.get(job_id)
        if record.finished:
            return cast("SteerReply", record.status.value)
        if record.plan is None or record.plan.rev != expected_rev:
            return "stale"
        steered = Steered(job_id=job_id, plan=plan, seq=record.seq + 1)
        self.on_event(job_id, self._store.cursor(job_id), steered)
        return "steered"

    def _note_cancel(self, record: JobRecord) -> None:
        record = self._live[record.id] = record.model_copy(update={"cancel_requested": True})
        self._store.put(record, self._store.cursor(record.id))
        self._subscribers.tell(record, None)

    def _abandon(self, job_id: str) -> None:
        """Whoever submitted the job was told that it failed, so it must not run."""
        self._abandoned.add(job_id)
        if job_id not in self._store:
            self._live.pop(job_id, None)
        elif record := self._live.get(job_id):  # its first event was quicker than the failure
            self._note_cancel(record)
        self.on_found(job_id)

    async def _adopt(self, job_id: str) -> None:
        job = await self._backend.job(job_id)
        if job_id in self._abandoned:
            if job is not None:
                await self._follow(job_id)
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
