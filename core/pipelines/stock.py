"""What diffbox uses of DiffSynth, imported once and with heavy parts deferred.

Everything in core.pipelines takes DiffSynth's names from here. The pipelines hook a few of its
internals; `check_hooks` says clearly when another version has other ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from core.errors import ConfigError
from core.pipelines.imports import deferred

with deferred():
    from diffsynth.configs import MODEL_CONFIGS
    from diffsynth.core.loader import ModelConfig, hash_model_file
    from diffsynth.core.loader.file import convert_keys_dict_to_single_str
    from diffsynth.core.vram.initialization import skip_model_initialization
    from diffsynth.core.vram.layers import (
        AutoWrappedLinear,
        AutoWrappedModule,
        LoRAHotLoadMixin,
        enable_vram_management_recursively,
    )
    from diffsynth.diffusion.base_pipeline import PipelineUnit
    from diffsynth.diffusion.flow_match import FlowMatchScheduler
    from diffsynth.models import (
        wan_video_dit,
        wan_video_image_encoder,
        wan_video_motion_controller,
        wan_video_text_encoder,
        wan_video_vae,
    )
    from diffsynth.pipelines.wan_video import (
        WanVideoPipeline,
        WanVideoUnit_ImageEmbedderVAE,
        WanVideoUnit_PromptEmbedder,
    )

__all__ = [
    "MODEL_CONFIGS",
    "AutoWrappedLinear",
    "AutoWrappedModule",
    "FlowMatchScheduler",
    "LoRAHotLoadMixin",
    "ModelConfig",
    "PipelineUnit",
    "WanVideoPipeline",
    "WanVideoUnit_ImageEmbedderVAE",
    "WanVideoUnit_PromptEmbedder",
    "check_hooks",
    "convert_keys_dict_to_single_str",
    "enable_vram_management_recursively",
    "hash_model_file",
    "image_embedder_index",
    "skip_model_initialization",
    "wan_video_dit",
    "wan_video_image_encoder",
    "wan_video_motion_controller",
    "wan_video_text_encoder",
    "wan_video_vae",
]

KNOWN_VERSION: Final = "2.1.12"

# What is hooked, and the parameters that it must have.
_VAE_DECODE: Final = ("self", "hidden_states", "device", "tiled", "tile_size", "tile_stride")
_TILED_DECODE: Final = ("self", "hidden_states", "device", "tile_size", "tile_stride")
_STEP: Final = ("self", "model_output", "timestep", "sample")
_EMBEDDER: Final = frozenset(
    {
        *("input_image", "end_image", "num_frames", "height", "width"),
        *("tiled", "tile_size", "tile_stride"),
    }
)
_DECODER: Final = ("self", "x", "feat_cache", "feat_idx")


def check_hooks() -> None:
    """Raise ConfigError if this DiffSynth is not built as the pipelines expect."""
    vae, core = wan_video_vae.WanVideoVAE, wan_video_vae.VideoVAE_
    call = inspect.signature(WanVideoPipeline.__call__).parameters
    expected = {
        "WanVideoVAE.decode": _starts(vae.decode, _VAE_DECODE),
        "WanVideoVAE.tiled_decode": _starts(vae.tiled_decode, _TILED_DECODE),
        "VideoVAE_.decode": _starts(core.decode, ("self", "z", "scale")),
        "VideoVAE_.clear_cache": _starts(core.clear_cache, ("self",)),
        "Decoder3d.forward": _starts(wan_video_vae.Decoder3d.forward, _DECODER),
        "wan_video_vae.tqdm": callable(getattr(wan_video_vae, "tqdm", None)),
        "LoRAHotLoadMixin": _starts(LoRAHotLoadMixin.lora_forward, ("self", "x", "out")),
        "FlowMatchScheduler.step": _starts(FlowMatchScheduler.step, _STEP),
        "WanVideoPipeline.__call__": {"progress_bar_cmd", "output_type"} <= call.keys(),
        "WanVideoUnit_ImageEmbedderVAE": _EMBEDDER
        == frozenset(WanVideoUnit_ImageEmbedderVAE().input_params),
        "WanVideoPipeline.load_models_to_device": hasattr(
            WanVideoPipeline, "load_models_to_device"
        ),
    }
    if missing := [name for name, found in expected.items() if not found]:
        raise ConfigError(
            f"diffsynth {version('diffsynth')} is not usable: {', '.join(missing)} changed; "
            f"install diffsynth=={KNOWN_VERSION}"
        )


def image_embedder_index(units: Sequence[Any]) -> int:
    """Where the unit that encodes the input image stands among a Wan pipeline's units.

    A unit that wraps a stock one has it as `stock`.
    """
    found = [
        index
        for index, unit in enumerate(units)
        if isinstance(getattr(unit, "stock", unit), WanVideoUnit_ImageEmbedderVAE)
    ]
    assert len(found) == 1, found
    return found[0]


def _starts(function: object, names: tuple[str, ...]) -> bool:
    if not callable(function):
        return False
    return tuple(inspect.signature(function).parameters)[: len(names)] == names
