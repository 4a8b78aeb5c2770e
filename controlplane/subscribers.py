"""Who hears of every change of a job: the WebSocket, and whoever follows one job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from controlplane.records import JobRecord
from core.protocol import Event

log = logging.getLogger(__name__)

Subscriber = Callable[[JobRecord, Event | None], None]
"""Called on the event loop after each change; the event is None when only a cancel was asked for.
It must not block."""


class Subscribers:
    """Those who listen now. Methods are called on one event loop."""

    def __init__(self) -> None:
        self._all: list[Subscriber] = []

    def add(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` called after each change of any job; returns what ends that."""
        self._all.append(subscriber)

        def leave() -> None:
            if subscriber in self._all:
                self._all.remove(subscriber)

        return leave

    async def follow(
        self, job_id: str, get: Callable[[str], JobRecord]
    ) -> AsyncIterator[JobRecord]:
        """What `get` gives for a job, now and after each change, until the job has ended."""
        changed = asyncio.Event()

        def note(record: JobRecord, _: Event | None) -> None:
            if record.id == job_id:
                changed.set()

        leave = self.add(note)
        try:
            while True:
                record = get(job_id)
                yield record
                if record.finished:
                    return
                await changed.wait()
                changed.clear()
        finally:
            leave()

    def tell(self, record: JobRecord, event: Event | None) -> None:
        """A job has changed."""
        for subscriber in tuple(self._all):
            try:
                subscriber(record, event)
            except Exception:
                log.exception("a subscriber failed")  # the others and the reader must go on
