"""The numerics: adapters between recipes and DiffSynth's pipelines. The only place with torch.

`build` makes the adapter for a spec; only `handler.compose` calls it. The pipelines lean on
DiffSynth's internals, so its version is pinned and checked (stock.check_hooks).
"""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from core import catalog, weights
from core.config import CoreConfig
from core.pipelines import demo
from core.pipelines.device import dtype_for
from core.pipelines.loading import load_wan
from core.pipelines.preview import measured_colours, wan21_colours
from core.pipelines.stock import wan_video_dit
from core.pipelines.wan_video import WanVideo
from core.protocol import Device
from core.run import Run
from core.workflows.base import PipelineSpec

__all__ = ["build", "versions"]


def build(spec: PipelineSpec, run: Run, *, config: CoreConfig, device: Device) -> WanVideo:
    """Load the weights of a spec and put an adapter before them.

    Raises:
        ModelMissing: weights are not here, or damaged.
        OutOfMemory: they do not fit on the device.
        JobCancelled: the run was cancelled while loading.
    """
    # One family so far; a further one is a further adapter here.
    row = catalog.model(spec.model)
    pipe = load_wan(row, run, models_dir=config.models_dir, device=device)
    colours = (
        measured_colours(pipe.vae, dtype_for(device), device.kind) if row.demo else wan21_colours()
    )
    files = weights.copies(row, config.models_dir, weights.Fingerprints(config.data_dir))
    return WanVideo(
        pipe,
        colours=colours,
        device=device,
        provenance={
            "model": row.id,
            "files": [file.provenance() for file in files],
            "versions": versions(),
            "device": device.name,
            "dtype": str(dtype_for(device)).removeprefix("torch."),
            "attention": _attention(),
            **({"demo": demo.RECIPE} if row.demo else {}),
        },
    )


def versions() -> dict[str, str]:
    """What is installed here, as far as it changes results."""
    return {
        "diffbox": version("diffbox"),
        "diffsynth": version("diffsynth"),
        "torch": torch.__version__,
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
