"""The REST API. Routes are made from the registry, so that none names a workflow."""

from __future__ import annotations

from fastapi import APIRouter

from controlplane.api import clips, files, health, jobs, workflows
from controlplane.api.errors import add_error_handlers, not_found
from controlplane.services import Services

__all__ = ["add_error_handlers", "api_router"]


def api_router(services: Services) -> APIRouter:
    """All routes below /api, and /outputs."""
    router = APIRouter()
    for part in (workflows, jobs, clips, files, health):
        router.include_router(part.router(services))
    # Last: without it, unknown paths of the API would get NiceGUI's page.
    router.add_api_route(
        "/api/{rest:path}",
        not_found,
        methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    return router
