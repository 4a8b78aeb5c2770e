"""Jobs: list, look at, cancel, and the events of one."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from controlplane.api.errors import errors
from controlplane.jobs import PAGE_MAX
from controlplane.records import JobRecord, listed, shown
from controlplane.services import Services
from core.protocol import JobStatus


class JobList(BaseModel):
    """Some jobs, newest first; `next` is the cursor of the page after it."""

    jobs: list[JobRecord]
    next: str | None


class EventList(BaseModel):
    """Some events of a job, oldest first; `next` is the cursor to go on from."""

    events: list[dict[str, Any]]
    next: str


def router(services: Services) -> APIRouter:
    """The routes below /api/jobs."""
    routes = APIRouter(prefix="/api/jobs", tags=["jobs"])
    jobs = services.jobs

    @routes.get("", response_model=JobList, responses=errors(401, 422))
    async def list_jobs(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
        status: JobStatus | None = None,
    ) -> Response:
        """Jobs, newest first, without their clips."""
        page = jobs.page(limit=limit, cursor=cursor, status=status)
        body = {"jobs": [listed(record) for record in page.jobs], "next": page.next}
        return Response(orjson.dumps(body), media_type="application/json")

    @routes.get("/{job_id}", response_model=JobRecord, responses=errors(401, 404))
    async def get_job(job_id: str) -> Response:
        """One job as it stands."""
        return Response(_dump(jobs.get(job_id)), media_type="application/json")

    @routes.delete("/{job_id}", response_model=JobRecord, responses=errors(401, 404))
    async def cancel_job(job_id: str) -> Response:
        """Cancel. A waiting job ends at once, a running one soon, an ended one stays as it is."""
        return Response(_dump(await jobs.cancel(job_id)), media_type="application/json")

    @routes.get("/{job_id}/events", response_model=EventList, responses=errors(401, 404, 503))
    async def list_events(
        job_id: str, after: Annotated[str, Query(max_length=100)] = ""
    ) -> Response:
        """What happened since a cursor; previews but the newest are dropped."""
        found = await jobs.events(job_id, after)
        events = [{**shown(stored.event), "cursor": stored.cursor} for stored in found]
        last = found[-1].cursor if found else after
        return Response(
            orjson.dumps({"events": events, "next": last}), media_type="application/json"
        )

    return routes


def _dump(record: JobRecord) -> bytes:
    return record.model_dump_json().encode()
