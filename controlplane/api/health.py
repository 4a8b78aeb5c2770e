"""Whether we serve, and what the backend and its workers do."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from controlplane.auth import SIGNED_IN
from controlplane.services import Services
from core.errors import BackendUnavailable
from core.protocol import Lane, WorkerState

VERSION: Final = version("diffbox")


class BackendHealth(BaseModel):
    """Where jobs run; `queues` is empty while it can't be reached."""

    name: str
    reachable: bool
    queues: dict[Lane, int]


class Health(BaseModel):
    """`degraded`: we serve, but jobs can't be submitted now. The rest is for who is signed in."""

    status: Literal["ok", "degraded"]
    version: str | None = None
    uptime_s: float | None = None
    backend: BackendHealth | None = None
    workers: list[WorkerState] | None = None


def router(services: Services) -> APIRouter:
    """The route /api/health."""
    routes = APIRouter(tags=["health"])
    started = time.monotonic()
    backend = services.backend

    @routes.get("/api/health", response_model_exclude_none=True)
    async def health(request: Request) -> Health:
        """Whether we serve; answers 200 as long as we do."""
        status: Literal["ok", "degraded"] = "ok" if backend.reachable else "degraded"
        if not request.scope[SIGNED_IN]:
            return Health(status=status)
        try:
            queues = await backend.queue_lengths() if backend.reachable else {}
        except BackendUnavailable:
            status, queues = "degraded", {}
        return Health(
            status=status,
            version=VERSION,
            uptime_s=round(time.monotonic() - started, 1),
            backend=BackendHealth(
                name=services.settings.backend, reachable=status == "ok", queues=queues
            ),
            workers=list(backend.workers()),
        )

    return routes
