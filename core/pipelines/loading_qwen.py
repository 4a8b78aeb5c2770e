"""From a catalog row to a QwenImagePipeline, and a controlnet beside one that is loaded.

    locate ──> check headers ──> VRAM policy ──> from_pretrained, one file set at a time

Nothing is ever downloaded here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import weights
from core.catalog import ModelRef, locate
from core.controlnets import ControlnetUse
from core.errors import ModelMissing
from core.pipelines import demo_qwen, qwen_text
from core.pipelines.device import dtype_for, host_memory
from core.pipelines.loading import (
    LocalModel,
    VramPolicy,
    checked,
    out_of_memory,
    printed_to_log,
    step_of,
    unknown_files,
    vram_policy,
)
from core.pipelines.stock_qwen import (
    QwenImageBlockwiseMultiControlNet,
    QwenImagePipeline,
    check_qwen_hooks,
)
from core.protocol import Device, Stage
from core.run import Run

log = logging.getLogger(__name__)

_FOLDERS = ("tokenizer", "processor")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedQwen:
    """A QwenImagePipeline, and how whatever is put beside it has to be loaded."""

    pipe: Any
    policy: VramPolicy


def load_qwen(row: ModelRef, run: Run, *, models_dir: Path, device: Device) -> LoadedQwen:
    """A QwenImagePipeline with the row's weights, on the device.

    Raises:
        ModelMissing: files are not here, or damaged; the message names them.
        OutOfMemory: they do not fit.
        JobCancelled: between two files.
    """
    check_qwen_hooks()
    files = [file for file in row.files if file.role not in _FOLDERS]
    run.enter(Stage.LOADING, 2 * len(files))
    if row.demo:
        demo_qwen.ensure(models_dir)
        demo_qwen.register()
    if error := weights.missing(row, models_dir):
        raise error
    dtype = dtype_for(device)
    paths = {file: locate(file, models_dir) for file in files}
    parameters = checked(paths, run)
    policy = vram_policy(
        device, weights_bytes=parameters * dtype.itemsize, host_free_bytes=host_memory()[1]
    )
    log.info("loading %s as %s, %s", row.id, dtype, policy)
    qwen_text.leave_rotary_alone()
    models = [
        LocalModel.of(paths[file], policy.fields(dtype), step_of(run, len(files) + index))
        for index, file in enumerate(files)
    ]
    folders = {
        f"{file.role}_config": LocalModel.of(
            [locate(file, models_dir)[0].parent], {}, step_of(run, 2 * len(files))
        )
        for file in row.files
        if file.role in _FOLDERS
    }
    with printed_to_log(), out_of_memory("loading " + row.title), unknown_files(row.title):
        pipe = QwenImagePipeline.from_pretrained(
            torch_dtype=dtype,
            device=device.kind,
            model_configs=models,
            vram_limit=policy.vram_limit_gib,
            **folders,
        )
    _check_roles(pipe, row)
    qwen_text.as_trained(pipe.text_encoder)
    return LoadedQwen(pipe=pipe, policy=policy)


def load_controlnet(loaded: LoadedQwen, use: ControlnetUse) -> Any:
    """A QwenImageBlockwiseMultiControlNet with one controlnet, kept as the pipeline is.

    Raises:
        ModelMissing: the file holds something else.
        OutOfMemory: it does not fit.
    """
    pipe, policy = loaded.pipe, loaded.policy
    model = LocalModel.of([use.path], policy.fields(pipe.torch_dtype), _nothing)
    title = f"the controlnet {use.id}"
    with printed_to_log(), out_of_memory("loading " + title), unknown_files(title):
        pool = pipe.download_and_load_models([model], policy.vram_limit_gib)
        controlnet = pool.fetch_model("qwen_image_blockwise_controlnet")
    if controlnet is None:
        raise ModelMissing(f"{use.path} holds no blockwise controlnet")
    return QwenImageBlockwiseMultiControlNet([controlnet])


def _nothing() -> None:
    """There is nothing to tell before a single file."""


def _check_roles(pipe: Any, row: ModelRef) -> None:
    """Each file was recognised as what the catalog says it is."""
    found = {
        "transformer": pipe.dit,
        "text_encoder": pipe.text_encoder,
        "vae": pipe.vae,
        "tokenizer": pipe.tokenizer,
        "processor": pipe.processor,
    }
    absent = [file for file in row.files if found[file.role] is None]
    if absent:
        names = "; ".join(f"{file.repo}: {file.pattern} ({file.role})" for file in absent)
        raise ModelMissing(f"these files of {row.title} hold something else: {names}")
