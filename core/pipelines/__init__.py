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
from core.pipelines import demo, imports
from core.pipelines.adapter import Adapter
from core.pipelines.device import dtype_for
from core.pipelines.loading import load_wan
from core.pipelines.preview import measured_colours, wan21_colours
from core.pipelines.stock import wan_video_dit
from core.pipelines.wan_video import WanVideo
from core.protocol import Device
from core.run import Run
from core.workflows.base import PipelineSpec

__all__ = ["build", "versions"]


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
    pipe = load_wan(row, run, models_dir=config.models_dir, device=device)
    dtype = dtype_for(device)

    def encode(picture: torch.Tensor) -> torch.Tensor:
        video = picture[:, None].to(device.kind, dtype)
        latents: torch.Tensor = pipe.vae.encode([video], device=device.kind)[0]
        return latents

    return WanVideo(
        pipe,
        colours=measured_colours(encode) if row.demo else wan21_colours(),
        device=device,
        provenance=_provenance(row, config, device, _attention(), demo.RECIPE),
    )


def _qwen_image(row: ModelRef, run: Run, config: CoreConfig, device: Device) -> Adapter:
    imports.warm()
    # Only now, because it imports large parts of transformers, which Wan does without.
    from core.pipelines import demo_qwen, loading_qwen, qwen_image  # noqa: PLC0415

    loaded = loading_qwen.load_qwen(row, run, models_dir=config.models_dir, device=device)
    return qwen_image.QwenImage(
        loaded,
        colours=qwen_image.colours(loaded, row),
        device=device,
        provenance=_provenance(row, config, device, qwen_image.attention(), demo_qwen.RECIPE),
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


def _attention() -> str:
    """Which implementation DiffSynth's Wan model takes, in its order."""
    for flag, name in (
        ("FLASH_ATTN_3_AVAILABLE", "flash_attention_3"),
        ("FLASH_ATTN_2_AVAILABLE", "flash_attention_2"),
        ("SAGE_ATTN_AVAILABLE", "sage_attention"),
    ):
        if getattr(wan_video_dit, flag, False):
            return name
    return "torch_sdpa"
