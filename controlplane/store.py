"""JobStore: the records of all jobs, in one TinyDB file.

    put(record) ──> unsaved ──(at most every 0.2 s, in a thread)──> jobs.json

The file is written beside, synced and renamed, so it is whole after any crash. One process owns
it. Records are read from memory: TinyDB's table holds all, `unsaved` what is newer.
"""

from __future__ import annotations

import asyncio
import bisect
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Document, Table

from controlplane.records import JobRecord, stored_record, to_store
from core.errors import ConfigError
from core.protocol import TERMINAL, JobStatus

log = logging.getLogger(__name__)

FLUSH_S: Final = 0.2
"""Changes are gathered for so long before the file is written."""
_LONGEST_PAUSE_S: Final = 30.0
"""Between two tries while the file can't be written."""
KEPT_JOBS: Final = 10_000
"""The oldest finished jobs beyond this are dropped: TinyDB writes the whole file each time."""


class AtomicStorage(Storage):
    """A TinyDB storage that keeps the document in memory and replaces the file as a whole.

    A file that can't be read is set aside under a name with the time, never overwritten.

    Raises:
        ConfigError: another process owns the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise ConfigError(
                f"DIFFBOX_DATA_DIR: {path.parent} can't be written: {error.strerror}"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(
                f"DIFFBOX_DATA_DIR: another diffbox uses {path.parent}; stop it, "
                "or give this one a folder of its own"
            ) from None
        self._tables = self._load()

    def read(self) -> dict[str, dict[str, Any]] | None:
        """The document; the same object each time."""
        return self._tables

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Replace the document, here and on disk."""
        self._tables = data
        beside = self._path.with_suffix(".new")
        with open(beside, "wb", opener=_private) as file:
            file.write(orjson.dumps(data))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    def close(self) -> None:
        """Give the file to others."""
        os.close(self._lock)

    def _load(self) -> dict[str, dict[str, Any]] | None:
        try:
            loaded = orjson.loads(self._path.read_bytes())
            if isinstance(loaded, dict) and all(isinstance(t, dict) for t in loaded.values()):
                return loaded
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError:
            log.warning("%s is not JSON", self._path)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        self._path.rename(aside)
        log.error("the job records were damaged and are set aside", extra={"file": str(aside)})
        return None


class _JobTable(Table):
    document_id_class = str  # type: ignore[assignment]  # TinyDB allows it, its types don't
    default_query_cache_capacity = 0

    def save(self, documents: Mapping[str, dict[str, Any]], dropped: list[str]) -> None:
        """All changes in one write; `upsert` would write the file once for each."""

        def change(table: dict[Any, Any]) -> None:
            table.update(documents)
            for job_id in dropped:
                table.pop(job_id, None)

        self._update_table(change)


class JobStore:
    """All job records. Methods are called on one event loop; only the file is written elsewhere.

    Args:
        path: the TinyDB file.
        kept: how many jobs are kept.
    """

    def __init__(self, path: Path, *, kept: int = KEPT_JOBS) -> None:
        self.folder = path.parent
        self._db = TinyDB(path, storage=AtomicStorage)
        self._table = _JobTable(self._db.storage, "jobs", cache_size=0)
        self._kept = kept
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs.json")
        self._unsaved: dict[str, tuple[JobRecord, str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._pause_s = FLUSH_S
        self._puts = 0
        self._saved_puts = 0
        self._wrote = asyncio.Event()
        # Ids sort by the time of submission; statuses are kept so that a filter reads no records.
        self._statuses = {str(d.doc_id): JobStatus(d["status"]) for d in self._readable()}
        self._ids = sorted(self._statuses)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._statuses

    def get(self, job_id: str) -> JobRecord | None:
        """The record as it was last put; without progress and preview."""
        if unsaved := self._unsaved.get(job_id):
            return unsaved[0]
        stored = self._stored(job_id)
        return None if stored is None else stored_record(stored)

    def cursor(self, job_id: str) -> str:
        """How far the job's events are in its record; "" at the start."""
        if unsaved := self._unsaved.get(job_id):
            return unsaved[1]
        return str((self._stored(job_id) or {}).get("cursor", ""))

    def newest(self, *, before: str | None, status: JobStatus | None) -> Iterator[str]:
        """Ids, newest first, from the one before `before` on."""
        start = len(self._ids) if before is None else bisect.bisect_left(self._ids, before)
        for index in range(start - 1, -1, -1):
            job_id = self._ids[index]
            if status is None or self._statuses[job_id] is status:
                yield job_id

    def ended(self, job_id: str) -> bool:
        """Whether the job is known and has ended."""
        return self._statuses.get(job_id) in TERMINAL

    def unfinished(self) -> list[str]:
        """Ids of the jobs that have not ended, oldest first."""
        return [job_id for job_id in self._ids if self._statuses[job_id] not in TERMINAL]

    def put(self, record: JobRecord, cursor: str) -> None:
        """Keep a record; it is on disk after the next flush."""
        if record.id not in self._statuses:
            bisect.insort(self._ids, record.id)
        self._statuses[record.id] = record.status
        self._unsaved[record.id] = (record, cursor)
        self._puts += 1
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._write_soon)

    async def saved(self) -> None:
        """Return when all that was put until now is on disk; hurries nothing."""
        wanted = self._puts
        while self._saved_puts < wanted:
            self._wrote.clear()
            await self._wrote.wait()

    async def flush(self) -> None:
        """Return when all that was put is on disk.

        Raises:
            OSError: it can't be written; it is tried again after a while.
        """
        while self._writing or self._unsaved:
            if self._writing is None:
                self._write_soon()
            assert self._writing is not None
            await asyncio.shield(self._writing)
            # To wait for what is done lets nobody else run, and `_written` may still have to.
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Flush and give the file to others."""
        try:
            await self.flush()
        except OSError as error:
            log.error("the newest changes of the job records are lost: %s", error)
        if self._timer:
            self._timer.cancel()
        self._thread.shutdown()
        self._db.close()

    def _write_soon(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())
        self._writing.add_done_callback(self._written)

    def _written(self, done: asyncio.Task[None]) -> None:
        self._writing = None
        error = None if done.cancelled() else done.exception()
        if error is None:
            if self._pause_s > FLUSH_S:
                log.info("the job records can be written again")
            self._pause_s = FLUSH_S
        else:
            if self._pause_s == FLUSH_S:  # once an outage, not once a try
                log.error("the job records can't be written", exc_info=error)
            self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        if self._unsaved and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._write_soon)

    async def _write(self) -> None:
        batch, puts = dict(self._unsaved), self._puts
        dropped = self._too_old()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._save, batch, dropped)
        for job_id, entry in batch.items():
            if self._unsaved.get(job_id) is entry:
                del self._unsaved[job_id]
        self._saved_puts = puts
        self._wrote.set()

    def _save(self, batch: dict[str, tuple[JobRecord, str]], dropped: list[str]) -> None:
        documents = {
            job_id: to_store(record) | {"cursor": cursor}
            for job_id, (record, cursor) in batch.items()
        }
        self._table.save(documents, dropped)

    def _too_old(self) -> list[str]:
        excess = len(self._ids) - self._kept
        if excess <= 0:
            return []
        dropped = [i for i in self._ids if self._statuses[i] in TERMINAL][:excess]
        for job_id in dropped:
            self._ids.remove(job_id)
            del self._statuses[job_id]
            self._unsaved.pop(job_id, None)
        return dropped

    def _stored(self, job_id: str) -> Mapping[str, Any] | None:
        found = self._table.get(doc_id=job_id)  # type: ignore[call-overload]
        return found if isinstance(found, Document) else None

    def _readable(self) -> Iterator[Document]:
        """All documents that are records; another one is left alone, and told."""
        for document in self._table:
            try:
                stored_record(document)
            except ValueError:
                log.exception("job record %s can't be read", document.doc_id)
                continue
            yield document


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
