"""The clips of a job: watched while it is made, steered, gone on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from controlplane.api.errors import errors
from controlplane.api.files import inside
from controlplane.api.workflows import Submitted, submitted
from controlplane.records import OUTPUTS, ClipRecord, JobRecord
from controlplane.services import Services
from controlplane.steering import Continuation, PlanChange, go_on, steer
from core.clips import FOLDER
from core.errors import NotFound
from core.media.playlist import PlaylistEntry, playlist

_BLOCK: Final = 1_000_000
_TO_ROOT: Final = "../../.."
"""From a playlist's address to the page's root, which a proxy may have put anywhere."""


def router(services: Services) -> APIRouter:
    """The routes below /api/jobs that are about clips."""
    routes = APIRouter(prefix="/api/jobs", tags=["clips"])
    jobs, outputs_dir = services.jobs, services.settings.outputs_dir

    @routes.patch(
        "/{job_id}/plan", response_model=JobRecord, responses=errors(401, 404, 409, 422, 503)
    )
    async def change_plan(job_id: str, change: PlanChange) -> Response:
        """Change what has not begun: prompts, number of clips, or finish after this clip.

        `rev` is that of the plan which was read; when another change was quicker, the answer
        is 409 and says what it was.
        """
        record = await steer(jobs, job_id, change)
        return Response(record.model_dump_json(), media_type="application/json")

    @routes.post(
        "/{job_id}/continue",
        status_code=202,
        response_model=Submitted,
        responses=errors(401, 404, 409, 422, 429, 503),
    )
    async def continue_job(job_id: str, wish: Continuation) -> Response:
        """Submit a job that keeps the clips up to `after`, and makes those after it.

        With the last clip as `after` it goes on; with an earlier one it is a branch; with
        `after` = k - 1 clip k is made again. -1 keeps none.
        """
        return submitted(await go_on(jobs, job_id, wish))

    @routes.get("/{job_id}/playlist.m3u8", responses=errors(401, 404), response_class=Response)
    async def get_playlist(job_id: str) -> Response:
        """The clips so far as an HLS playlist, which grows until the job has ended."""
        record = jobs.get(job_id)
        text = playlist(list(_entries(record.clips)), ended=record.finished)
        headers = {"cache-control": "no-cache"}
        return Response(text, headers=headers, media_type="application/vnd.apple.mpegurl")

    @routes.get("/{job_id}/clips.mp4", responses=errors(401, 404), response_class=Response)
    async def get_clips(job_id: str) -> Response:
        """The clips so far as one mp4 to save."""
        record = jobs.get(job_id)
        parts = [_part(outputs_dir, clip, first=not n) for n, clip in enumerate(record.clips)]
        if not parts:
            raise NotFound(f"job {record.id} has no clips yet")
        name = f"{record.workflow}-{record.id[-12:]}-clips.mp4"
        headers = {
            "content-length": str(sum(path.stat().st_size - start for path, start in parts)),
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-cache",
        }
        return StreamingResponse(_bytes(parts), headers=headers, media_type="video/mp4")

    return routes


def _entries(clips: tuple[ClipRecord, ...]) -> Iterator[PlaylistEntry]:
    before = clips[0].init_bytes if clips else 0
    for clip in clips:
        made = clip.artifact
        yield PlaylistEntry(
            url=_TO_ROOT + made.url if made.url.startswith(OUTPUTS) else made.url,
            seconds=(made.frames or 0) / (made.fps or 1),
            init_bytes=clip.init_bytes,
            size_bytes=made.size_bytes,
            encoded_anew=clip.init_bytes != before,
        )
        before = clip.init_bytes


def _part(outputs_dir: Path, clip: ClipRecord, *, first: bool) -> tuple[Path, int]:
    """A clip's file, and from which byte on it belongs to the whole.

    Raises:
        NotFound: it is not, or no longer, on this computer.
    """
    if not clip.artifact.url.startswith(OUTPUTS):
        raise NotFound(f"clip {clip.index} is not on this computer: {clip.artifact.url}")
    job_id, _, filename = clip.artifact.url.removeprefix(OUTPUTS).split("/")
    return inside(outputs_dir, job_id, FOLDER, filename), 0 if first else clip.init_bytes


def _bytes(parts: list[tuple[Path, int]]) -> Iterator[bytes]:
    for path, start in parts:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(_BLOCK):
                yield block
