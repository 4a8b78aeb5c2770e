"""Forgetting: the backend drops ended jobs whose records are on disk, so that it stays small."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from controlplane.backends.base import Backend
from controlplane.store import JobStore
from core.errors import BackendUnavailable

log = logging.getLogger(__name__)

EVENTS_KEPT_JOBS: Final = 10
"""The backend keeps the events of so many ended jobs; the record is what stays of the others."""


class Forgetting:
    """Which ended jobs the backend still holds, oldest first."""

    def __init__(self, backend: Backend, store: JobStore) -> None:
        self._backend = backend
        self._store = store
        self._ended: deque[str] = deque()
        self._running: asyncio.Task[None] | None = None

    def add(self, job_id: str) -> None:
        """A job has ended."""
        self._ended.append(job_id)
        self._soon()

    def replace(self, job_ids: Iterable[str]) -> None:
        """What the backend holds was looked up."""
        self._ended = deque(job_ids)
        self._soon()

    def close(self) -> None:
        """Stop; what is left is found at the next connect."""
        if self._running:
            self._running.cancel()

    def _soon(self) -> None:
        if len(self._ended) > EVENTS_KEPT_JOBS and self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._forget_oldest())

    async def _forget_oldest(self) -> None:
        try:
            while len(self._ended) > EVENTS_KEPT_JOBS:
                oldest = set(islice(self._ended, len(self._ended) - EVENTS_KEPT_JOBS))
                await self._store.saved()  # not flush(): that writes the whole file for each job
                await self._backend.forget(oldest)
                self._ended = deque(job_id for job_id in self._ended if job_id not in oldest)
        except BackendUnavailable as error:
            log.warning("ended jobs stay in the backend for now: %s", error)
        finally:
            self._running = None
