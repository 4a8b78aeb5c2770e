"""What diffbox uses of DiffSynth, imported once and with heavy parts deferred.

Everything in core.pipelines takes DiffSynth's names from here. The pipelines hook a few of its
internals; `check_hooks` says clearly when another version has other ones.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Final

from core.errors import ConfigError
from core.pipelines.imports import deferred

with deferred():
    from diffsynth.configs import MODEL_CONFIGS
    from diffsynth.core.loader import ModelConfig, hash_model_file
    from diffsynth.core.loader.file import convert_keys_dict_to_single_str
    from diffsynth.core.vram.initialization import skip_model_initialization
    from diffsynth.diffusion.flow_match import FlowMatchScheduler
    from diffsynth.models import wan_video_dit, wan_video_text_encoder, wan_video_vae
    from diffsynth.pipelines.wan_video import WanVideoPipeline

__all__ = [
    "MODEL_CONFIGS",
    "FlowMatchScheduler",
    "ModelConfig",
    "WanVideoPipeline",
    "check_hooks",
    "convert_keys_dict_to_single_str",
    "hash_model_file",
    "skip_model_initialization",
    "wan_video_dit",
    "wan_video_text_encoder",
    "wan_video_vae",
]

KNOWN_VERSION: Final = "2.1.12"

# What is hooked, and the parameters that it must have.
_VAE_DECODE: Final = ("self", "hidden_states", "device", "tiled", "tile_size", "tile_stride")
_TILED_DECODE: Final = ("self", "hidden_states", "device", "tile_size", "tile_stride")
_STEP: Final = ("self", "model_output", "timestep", "sample")
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
        "FlowMatchScheduler.step": _starts(FlowMatchScheduler.step, _STEP),
        "WanVideoPipeline.__call__": {"progress_bar_cmd", "output_type"} <= call.keys(),
        "WanVideoPipeline.load_models_to_device": hasattr(
            WanVideoPipeline, "load_models_to_device"
        ),
    }
    if missing := [name for name, found in expected.items() if not found]:
        raise ConfigError(
            f"diffsynth {version('diffsynth')} is not usable: {', '.join(missing)} changed; "
            f"install diffsynth=={KNOWN_VERSION}"
        )


def _starts(function: object, names: tuple[str, ...]) -> bool:
    if not callable(function):
        return False
    return tuple(inspect.signature(function).parameters)[: len(names)] == names
