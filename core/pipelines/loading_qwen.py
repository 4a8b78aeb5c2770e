"""From a catalog row to a QwenImagePipeline, and a controlnet beside one that is loaded.

Nothing is ever downloaded here; what is the same for all families is in loading.py.
"""

from __future__ import annotations

from typing import Any

from core.catalog import ModelRef
from core.config import CoreConfig
from core.controlnets import ControlnetUse
from core.errors import ModelMissing
from core.pipelines import demo_qwen, qwen_text
from core.pipelines.loading import (
    Loaded,
    LocalModel,
    check_roles,
    nothing,
    out_of_memory,
    prepared,
    printed_to_log,
    unknown_files,
)
from core.pipelines.stock_qwen import (
    QwenImageBlockwiseMultiControlNet,
    QwenImagePipeline,
    check_qwen_hooks,
)
from core.protocol import Device
from core.run import Run


def load_qwen(row: ModelRef, run: Run, *, config: CoreConfig, device: Device) -> Loaded:
    """A QwenImagePipeline with the row's weights, on the device.

    Raises:
        ModelMissing: files are not here, or damaged; the message names them.
        OutOfMemory: they do not fit.
        JobCancelled: between two files.
    """
    check_qwen_hooks()
    if row.demo:
        demo_qwen.ensure(config.models_dir)
        demo_qwen.register()
    given = prepared(row, run, config=config, device=device)
    qwen_text.leave_rotary_alone()
    with printed_to_log(), out_of_memory("loading " + row.title), unknown_files(row.title):
        pipe = QwenImagePipeline.from_pretrained(**given.arguments)
    check_roles(
        row,
        {
            "transformer": pipe.dit,
            "text_encoder": pipe.text_encoder,
            "vae": pipe.vae,
            "tokenizer": pipe.tokenizer,
            "processor": pipe.processor,
        },
    )
    qwen_text.as_trained(pipe.text_encoder)
    return Loaded(pipe=pipe, placement=given.placement)


def load_controlnet(loaded: Loaded, use: ControlnetUse) -> Any:
    """A QwenImageBlockwiseMultiControlNet with one controlnet, kept as the pipeline is.

    Raises:
        ModelMissing: the file holds something else.
        OutOfMemory: it does not fit.
    """
    pipe, placement = loaded.pipe, loaded.placement
    model = LocalModel.of([use.path], placement.fields(pipe.torch_dtype, "controlnet"), nothing)
    title = f"the controlnet {use.id}"
    with printed_to_log(), out_of_memory("loading " + title), unknown_files(title):
        pool = pipe.download_and_load_models([model], placement.vram_limit_gib)
        controlnet = pool.fetch_model("qwen_image_blockwise_controlnet")
    if controlnet is None:
        raise ModelMissing(f"{use.path} holds no blockwise controlnet")
    return QwenImageBlockwiseMultiControlNet([controlnet])
