"""What is checked when a job is submitted: a worker has its model, files are here, LoRAs fit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from controlplane.records import JobRecord
from controlplane.uploads import Uploads
from core.errors import DiffboxError, InvalidParams, ModelMissing, NotFound, Problem
from core.lora import LoraShelf
from core.protocol import WorkerState
from core.workflows.base import Workflow
from core.workflows.params import FILE_KINDS, Params, clip_of, hints_of


async def checked(
    recipe: Workflow[Any],
    raw: Mapping[str, Any],
    workers: Collection[WorkerState],
    uploads: Uploads,
    loras: LoraShelf,
) -> Params:
    """The params of a job that can run, from what was sent.

    Raises:
        InvalidParams: with one Problem a rejected value; also for an upload that is not here, and
            for a LoRA that is made for another model.
        InputRejected: a data: URI that is not a picture or video that we take.
        ModelMissing: no worker has the model's weights, or a LoRA is not here.
    """
    params: Params = recipe.parse(raw, ready=ready_models(workers))
    check_model(recipe, params.model, workers)
    await asyncio.to_thread(check_loras, recipe, params, workers, loras)
    return await with_uploads(params, uploads)


def ready_models(workers: Collection[WorkerState]) -> frozenset[str]:
    """Ids of the models whose weights some worker has."""
    return frozenset(model for worker in workers for model in worker.models)


def check_model(recipe: Workflow[Any], model_id: str, workers: Collection[WorkerState]) -> None:
    """Say now, not after the wait in the queue, that nobody can run the job.

    Raises:
        ModelMissing: no worker has the model's weights, and none is still starting.
    """
    settled = workers and all(worker.state != "starting" for worker in workers)
    row = next((row for row in recipe.models if row.id == model_id), None)
    if not settled or row is None or row.demo or model_id in ready_models(workers):
        return
    message = f"model {model_id!r} is on no worker: download its weights, then try again"
    raise ModelMissing(message, problems=(Problem(field="model", message=message),))


def check_loras(
    recipe: Workflow[Any], params: Params, workers: Collection[WorkerState], loras: LoraShelf
) -> None:
    """Say now what the engine would say about the LoRAs, as far as it can be told from here.

    A file that is not here is only missing where all workers are on this machine.

    Raises:
        ModelMissing: a LoRA is not here, or damaged.
        InvalidParams: a LoRA is for another model.
    """
    here = socket.gethostname()
    all_here = bool(workers) and all(worker.host == here for worker in workers)
    loras.check(params.model, recipe.id, params.lora_parts(), all_here=all_here)


def clip_field(cls: type[Params]) -> str | None:
    """The parameter that names the clip to go on from; None for a workflow that can't."""
    fields = cls.model_fields.items()
    return next((name for name, field in fields if hints_of(field).get("widget") == "clip"), None)


def check_clip(
    recipe: Workflow[Any], params: Params, record_of: Callable[[str], JobRecord]
) -> None:
    """Say now, not after the wait in the queue, that there is no such clip to go on from.

    Raises:
        InvalidParams: the job or its clip is unknown, of another workflow, or does not fit.
    """
    field = clip_field(type(params))
    ref = getattr(params, field) if field else None
    if not field or not ref:
        return
    job_id, index = clip_of(ref)
    try:
        source = record_of(job_id)
    except NotFound:
        raise _no_clip(field, f"there is no job {job_id}: it may have been deleted") from None
    if source.workflow != recipe.id:
        raise _no_clip(field, f"job {job_id} was made with {source.workflow!r}, not {recipe.id!r}")
    if index not in [clip.index for clip in source.clips]:
        raise _no_clip(field, no_such_clip(source, index))
    try:
        source_params = recipe.read(source.params)
    except DiffboxError as error:
        message = f"job {job_id} was made by another version of diffbox: {error.message}"
        raise _no_clip(field, message) from error
    recipe.check_continuation(params, source_params)


def no_such_clip(record: JobRecord, index: int) -> str:
    """In words: which clips a job has, when one was named that it has not."""
    clips = record.clips
    there = f"it has clips {clips[0].index} to {clips[-1].index}" if clips else "it has none yet"
    return f"clip {index} of job {record.id} does not exist: {there}"


def _no_clip(field: str, message: str) -> InvalidParams:
    text = f"{field}: {message}"
    return InvalidParams(text, problems=(Problem(field=field, message=text),))


async def with_uploads(params: Params, uploads: Uploads) -> Params:
    """Params whose uploads are here and whose data: URIs have become uploads.

    Raises:
        InvalidParams: an upload is not here, or is not what its field takes.
        InputRejected: a data: URI that is not a picture or video that we take.
    """
    problems: list[Problem] = []
    kept: dict[str, tuple[str, ...]] = {}
    for field, refs in params.file_refs().items():
        wanted = FILE_KINDS[hints_of(type(params).model_fields[field])["widget"]]
        found = [await _kept(field, ref, wanted, uploads, problems) for ref in refs]
        kept[field] = tuple(found)
    if problems:
        raise InvalidParams("; ".join(p.message for p in problems), problems=tuple(problems))
    return params.with_files(kept)


async def _kept(
    field: str, ref: str, wanted: str, uploads: Uploads, problems: list[Problem]
) -> str:
    """The reference to keep; what is wrong with it goes to `problems`."""
    kind, _, rest = ref.partition(":")
    if kind == "https":
        return ref  # fetched by the worker, behind its guard
    if kind == "data":
        upload = await uploads.add_data_uri(field, ref)
    elif (found := uploads.find(rest)) is None:
        message = f"{field}: upload {rest[:12]}… is not here: upload it again"
        problems.append(Problem(field=field, message=message))
        return ref
    else:
        upload = found
    if upload.kind != wanted:
        article = {"image": "an image", "video": "a video"}
        message = f"{field}: the file is {article[upload.kind]}, not {article[wanted]}"
        problems.append(Problem(field=field, message=message))
    return upload.ref
