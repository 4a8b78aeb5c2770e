"""Files: uploads in, uploads and outputs out, with ranges and validators.

They are routes of the app itself, not of NiceGUI: large files do not pass its middleware.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import FileResponse, Response

from controlplane.api.errors import WrongMediaType, errors
from controlplane.records import OUTPUTS
from controlplane.services import Services
from controlplane.uploads import TooLarge
from core.clips import FOLDER
from core.errors import NotFound

_OUTPUT: Final = OUTPUTS + "{job_id}/{attempt}/{filename}"
_INLINE: Final = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
"""What a browser may show; all else is downloaded."""
_HEADERS: Final = {
    # Names are never used again: the attempt, or the content's hash, is part of them.
    "cache-control": "private, max-age=31536000, immutable",
    "content-security-policy": "sandbox",
    "x-content-type-options": "nosniff",
}


class UploadBody(BaseModel):
    """A kept file; `ref` is what a job's params take."""

    ref: str
    media_type: str
    width: int
    height: int
    size_bytes: int


def router(services: Services) -> APIRouter:
    """The routes of uploads and outputs."""
    routes = APIRouter(tags=["files"])
    uploads = services.uploads
    outputs_dir = services.settings.outputs_dir

    @routes.post(
        "/api/uploads",
        status_code=201,
        responses=errors(401, 413, 415, 422, 507),
        openapi_extra=_BINARY_BODY,
    )
    async def upload(
        request: Request, filename: Annotated[str, Query(max_length=500)] = ""
    ) -> UploadBody:
        """Keep a picture or video; the body is the file itself."""
        kind = request.headers.get("content-type", "").partition("/")[0].strip().lower()
        if kind not in {"image", "video"}:
            raise WrongMediaType("send the file itself, with Content-Type: image/… or video/…")
        limit = uploads.limit(kind)
        if int(request.headers.get("content-length", "0")) > limit:
            raise TooLarge(f"the {kind} is too large: at most {limit // 1_000_000} MB")
        kept = await uploads.add(request.stream(), filename=filename)
        return UploadBody(ref=kept.ref, **kept.model_dump(include=_UPLOAD_FIELDS))

    @routes.head("/api/uploads/{sha256}", include_in_schema=False)
    @routes.get("/api/uploads/{sha256}", responses=errors(401, 404))
    async def get_upload(sha256: str, request: Request) -> Response:
        """A kept file."""
        kept = uploads.find(sha256)
        if kept is None:
            raise NotFound("there is no such upload")
        return _file(uploads.path(sha256), request, media_type=kept.media_type)

    @routes.head(_OUTPUT, include_in_schema=False)
    @routes.get(_OUTPUT, responses=errors(401, 404))
    async def output(
        job_id: str, attempt: str, filename: str, request: Request, download: bool = False
    ) -> Response:
        """An output; with ?download=1 as a file to save."""
        path = inside(outputs_dir, job_id, attempt, filename)
        media_type = _INLINE.get(path.suffix.lower())
        saved = filename if download or media_type is None else None
        return _file(path, request, media_type=media_type, saved_as=saved)

    return routes


_UPLOAD_FIELDS: Final = {"media_type", "width", "height", "size_bytes"}
_BINARY_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/*", "video/*")
        },
    }
}


def inside(root: Path, *parts: str) -> Path:
    """A finished output below the folder, symlinks followed.

    Raises:
        NotFound: not there, not a file, not below the folder, or what a worker keeps for itself.
    """
    missing = NotFound("there is no such output")
    if any(part.startswith(".") or "\0" in part for part in parts):
        raise missing
    if FOLDER in parts and not parts[-1].endswith(".mp4"):
        raise missing
    path = root.joinpath(*parts).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise missing
    return path


def _file(
    path: Path, request: Request, *, media_type: str | None, saved_as: str | None = None
) -> Response:
    response = FileResponse(
        path,
        headers=_HEADERS,
        media_type=media_type or "application/octet-stream",
        filename=saved_as,
        stat_result=path.stat(),
    )
    if response.headers["etag"] in request.headers.get("if-none-match", ""):
        kept = {k: response.headers[k] for k in ("etag", "cache-control", "last-modified")}
        return Response(status_code=304, headers=kept)
    return response
