"""What can be made, and submitting it: one typed POST route a workflow, from its Params."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from controlplane.api.errors import BadRequest, WrongMediaType, errors
from controlplane.records import JobRecord
from controlplane.services import Services
from core.catalog import ModelRef
from core.errors import InvalidParams
from core.protocol import JobStatus, Lane
from core.workflows import workflow, workflows
from core.workflows.base import Workflow
from core.workflows.presets import presets_for

BODY_MAX: Final = 12_000_000
"""Bytes; a data: URI may have ten million."""
_FIELDS_MAX: Final = 200
"""No workflow has so many parameters; each unknown one costs a search for the nearest."""


class Submitted(BaseModel):
    """A queued job; `params` are complete, with the model chosen and the seed settled."""

    job_id: str
    status: JobStatus
    url: str
    params: dict[str, Any]


class ModelBody(BaseModel):
    """A model that a workflow can run on; `ready` is whether a worker has its weights."""

    id: str
    title: str
    demo: bool
    ready: bool
    licence: str
    capabilities: list[str]
    defaults: dict[str, Any]


class PresetBody(BaseModel):
    """Settings that belong together; `models` are those that they are made for."""

    id: str
    title: str
    models: list[str]
    params: dict[str, Any]


class WorkflowBody(BaseModel):
    """A workflow; `params` is the JSON schema of its Params, with hints under x-diffbox."""

    id: str
    title: str
    summary: str
    params: dict[str, Any]
    models: list[ModelBody]
    presets: list[PresetBody]


class WorkflowList(BaseModel):
    """All workflows, in the order in which they are shown."""

    workflows: list[WorkflowBody]


def router(services: Services) -> APIRouter:
    """The routes below /api/workflows."""
    routes = APIRouter(prefix="/api/workflows", tags=["workflows"])

    @routes.get("")
    async def list_workflows() -> WorkflowList:
        """What can be made, with which parameters, on which models."""
        ready = {model for worker in services.backend.workers() for model in worker.models}
        return WorkflowList(
            workflows=[_described(recipe, schemas[recipe.id], ready) for recipe in workflows()]
        )

    schemas = {recipe.id: recipe.params.model_json_schema() for recipe in workflows()}
    for recipe in workflows():
        routes.add_api_route(
            f"/{recipe.id}",
            _submit(services, recipe),
            methods=["POST"],
            status_code=202,
            response_model=Submitted,
            responses=errors(400, 401, 409, 413, 415, 422, 429, 503),
            summary=f"Submit: {recipe.title}",
            description=recipe.summary,
            operation_id=f"submit_{recipe.id}",
            # The route itself takes JSON unchecked, because `parse` checks it once and in our
            # words. Schemas of its own ($defs) stay inside: no second place is needed for them.
            openapi_extra=_request_body(schemas[recipe.id]),
        )

    @routes.post("/{workflow_id}", include_in_schema=False)
    async def unknown(workflow_id: str) -> None:
        workflow(workflow_id[:100])

    return routes


def _submit(services: Services, recipe: Workflow[Any]) -> Callable[..., Awaitable[Response]]:
    async def submit(request: Request, lane: Lane = "normal") -> Response:
        raw = await json_object(request)
        return submitted(await services.jobs.submit(recipe.id, raw, lane))

    return submit


def submitted(record: JobRecord) -> Response:
    """The answer for a queued job, as `Submitted` has it."""
    url = f"/api/jobs/{record.id}"
    body = {"job_id": record.id, "status": record.status, "url": url, "params": record.params}
    # Serialized here, not by response_model: this is the path whose time counts.
    return Response(orjson.dumps(body), 202, {"location": url}, media_type="application/json")


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body.

    Raises:
        WrongMediaType: it is not declared as JSON.
        BadRequest: it is not a JSON object.
        InvalidParams: it has more members than any workflow has parameters.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType("send the parameters as JSON, with Content-Type: application/json")
    try:
        raw = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise BadRequest("the body is not a JSON object")
    if len(raw) > _FIELDS_MAX:
        raise InvalidParams(f"{len(raw)} parameters are more than any workflow has")
    return cast("dict[str, Any]", raw)


def _described(recipe: Workflow[Any], schema: dict[str, Any], ready: set[str]) -> WorkflowBody:
    return WorkflowBody(
        id=recipe.id,
        title=recipe.title,
        summary=recipe.summary,
        params=schema,
        models=[_model(row, row.id in ready) for row in recipe.models],
        presets=[
            PresetBody(
                id=preset.id,
                title=preset.title,
                models=list(preset.models),
                params=dict(preset.params),
            )
            for preset in presets_for(recipe.id)
        ],
    )


def _model(row: ModelRef, ready: bool) -> ModelBody:
    return ModelBody(
        id=row.id,
        title=row.title,
        demo=row.demo,
        ready=ready,
        licence=row.licence,
        capabilities=sorted(row.capabilities),
        defaults=dict(row.defaults),
    )


def _request_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
