"""Errors as the API answers them: {"error": {code, message, retryable, problems}}."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from controlplane.auth import error_response
from core.errors import DiffboxError, NotFound, Problem

log = logging.getLogger(__name__)

_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "input_rejected"}


class BadRequest(DiffboxError):
    """The body can't be read at all."""

    code = "bad_request"
    http_status = 400


class WrongMediaType(DiffboxError):
    """The body is of a type that the route does not take."""

    code = "wrong_media_type"
    http_status = 415


class ProblemBody(BaseModel):
    """One rejected value; `field` is "" when the whole request is meant."""

    field: str
    message: str


class ErrorDetail(BaseModel):
    """What went wrong, in words for the user; `code` is for programs."""

    code: str
    message: str
    retryable: bool
    problems: list[ProblemBody]


class ErrorBody(BaseModel):
    """Every error's body."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses`, for OpenAPI."""
    return {status: {"model": ErrorBody} for status in statuses}


async def not_found(rest: str) -> Response:
    """No such path."""
    raise NotFound(f"there is no /api/{rest[:200]} with this method")


def add_error_handlers(app: FastAPI) -> None:
    """Have every error answered in the one shape."""
    app.add_exception_handler(DiffboxError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _expected(_: Request, error: Exception) -> Response:
    assert isinstance(error, DiffboxError)
    if error.http_status is None:
        log.error("a request failed: %s", error.message, exc_info=error)
    return error_response(
        error.http_status or 500,
        error.code,
        error.message,
        retryable=error.retryable,
        problems=error.problems,
    )


async def _invalid(_: Request, error: Exception) -> Response:
    """A parameter of path or query, or a part of the body, that FastAPI refused."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        return error_response(400, BadRequest.code, "the body is not valid JSON")
    # The place begins with "path", "query" or "body"; then come names, and numbers in lists.
    places = [[str(part) for part in e["loc"][1:]] for e in found]
    problems = [
        Problem(field=place[0] if place else "", message=str(e["msg"]))
        for place, e in zip(places, found, strict=True)
    ]
    message = "; ".join(
        f"{'.'.join(place) or 'body'}: {e['msg']}" for place, e in zip(places, found, strict=True)
    )
    return error_response(422, "invalid_params", message, problems=problems)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request")
    response = error_response(error.status_code, code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(500, "internal", "this is a bug of diffbox; its log says more")
