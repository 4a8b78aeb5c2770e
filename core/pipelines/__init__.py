"""The numerics: adapters between recipes and DiffSynth's pipelines. The only place with torch.

`build` makes the adapter for a spec; only `handler.compose` calls it. The pipelines lean on
DiffSynth's internals, so its version is pinned and checked (stock.check_hooks).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import torch

from core import catalog, weights
from core.catalog import Family, ModelRef
from core.config import CoreConfig
from core.pipelines import attention, compiling, demo, imports
from core.pipelines.adapter import Adapter
from core.pipelines.device import dtype_for
from core.pipelines.loading import load_wan
from core.pipelines.placement import fits
from core.pipelines.preview import measured_colours, wan21_colours
from core.pipelines.stock import wan_video_dit
from core.pipelines.wan_video import WanVideo
from core.protocol import Device
from core.run import Run
from core.workflows.base import PipelineSpec

__all__ = ["build", "fits", "versions"]


def build(spec: PipelineSpec, run: Run, *, config: CoreConfig, device: Device) -> Adapter:
    """Load the weights of a spec and put an adapter before them.

    Raises:
        ModelMissing: weights are not here, or damaged.
        OutOfMemory: they do not fit on the device.
        JobCancelled: the run was cancelled while loading.
    """
    row = catalog.model(spec.model)
    return _FAMILIES[row.family](row, run, config, device)


def _wan_video(row: ModelRef, run: Run, config: CoreConfig, device: Device) -> WanVideo:
    attention.choose(config.attention, wan_video_dit)
    loaded = load_wan(row, run, config=config, device=device)
    if config.compile:
        compiling.compile_blocks(loaded, config)
    dtype = dtype_for(device)

    def encode(picture: torch.Tensor) -> torch.Tensor:
        video = picture[:, None].to(device.kind, dtype)
        loaded.pipe.load_models_to_device(["vae"])
        latents: torch.Tensor = loaded.pipe.vae.encode([video], device=device.kind)[0]
        loaded.pipe.load_models_to_device([])
        return latents

    return WanVideo(
        loaded,
        colours=measured_colours(encode) if row.demo else wan21_colours(),
        device=device,
        provenance=_provenance(row, config, device, attention.name_of(wan_video_dit), demo.RECIPE),
    )


def _qwen_image(row: ModelRef, run: Run, config: CoreConfig, device: Device) -> Adapter:
    imports.warm()
    # Only now, because it imports large parts of transformers, which Wan does without.
    from core.pipelines import demo_qwen, loading_qwen, qwen_image, stock_qwen  # noqa: PLC0415

    attention.choose(config.attention, stock_qwen.qwen_image_dit)
    loaded = loading_qwen.load_qwen(row, run, config=config, device=device)
    if config.compile:
        compiling.compile_blocks(loaded, config)
    name = attention.name_of(stock_qwen.qwen_image_dit)
    return qwen_image.QwenImage(
        loaded,
        colours=qwen_image.colours(loaded, row),
        device=device,
        provenance=_provenance(row, config, device, name, demo_qwen.RECIPE),
    )


_FAMILIES: Final[dict[Family, Callable[[ModelRef, Run, CoreConfig, Device], Adapter]]] = {
    "wan_video": _wan_video,
    "qwen_image": _qwen_image,
}


def _provenance(
    row: ModelRef, config: CoreConfig, device: Device, attention: str, demo_recipe: str
) -> dict[str, Any]:
    """Models and versions, for the metadata of outputs."""
    files = weights.copies(row, config.models_dir, weights.Fingerprints(config.data_dir))
    return {
        "model": row.id,
        "files": [file.provenance() for file in files],
        "versions": versions(),
        "device": device.name,
        "dtype": str(dtype_for(device)).removeprefix("torch."),
        "attention": attention,
        "compiled": config.compile,
        **({"demo": demo_recipe} if row.demo else {}),
    }


def versions() -> dict[str, str]:
    """What is installed here, as far as it changes results."""
    return {
        "diffbox": version("diffbox"),
        "diffsynth": version("diffsynth"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
