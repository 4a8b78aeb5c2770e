"""What diffbox uses of DiffSynth for Qwen Image; imported when the first such job is loaded.

Unlike core.pipelines.stock nothing is deferred: DiffSynth's Qwen modules subclass classes of
transformers at import. So import it after `imports.warm()`, and never from a module that every
worker imports.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Final

from diffsynth.configs.vram_management_module_maps import VRAM_MANAGEMENT_MODULE_MAPS
from diffsynth.models import (
    qwen_image_controlnet,
    qwen_image_dit,
    qwen_image_text_encoder,
    qwen_image_vae,
)
from diffsynth.models.model_loader import ModelPool
from diffsynth.pipelines.qwen_image import (
    QwenImageBlockwiseMultiControlNet,
    QwenImagePipeline,
    QwenImageUnit_EditImageEmbedder,
    QwenImageUnit_PromptEmbedder,
)
from diffsynth.utils.controlnet import ControlNetInput

from core.errors import ConfigError
from core.pipelines.stock import KNOWN_VERSION, FlowMatchScheduler

__all__ = [
    "VRAM_MANAGEMENT_MODULE_MAPS",
    "ControlNetInput",
    "ModelPool",
    "QwenImageBlockwiseMultiControlNet",
    "QwenImagePipeline",
    "QwenImageUnit_EditImageEmbedder",
    "QwenImageUnit_PromptEmbedder",
    "check_qwen_hooks",
    "qwen_image_controlnet",
    "qwen_image_dit",
    "qwen_image_text_encoder",
    "qwen_image_vae",
]

# What is hooked or passed, and the parameters that it must have.
_CALL: Final = frozenset(
    {
        *("prompt", "negative_prompt", "cfg_scale", "input_image", "denoising_strength"),
        *("inpaint_mask", "height", "width", "seed", "rand_device", "num_inference_steps"),
        *("exponential_shift_mu", "blockwise_controlnet_inputs", "edit_image"),
        *("edit_image_auto_resize", "zero_cond_t", "tiled", "tile_size", "tile_stride"),
        "progress_bar_cmd",
    }
)
_DECODE: Final = ("self", "x", "tiled", "tile_size", "tile_stride")
_CONTROL: Final = ("controlnet_id", "scale", "start", "end", "image")


def check_qwen_hooks() -> None:
    """Raise ConfigError if this DiffSynth is not built as the Qwen pipeline expects."""
    vae, encoder = qwen_image_vae.QwenImageVAE, qwen_image_text_encoder.QwenImageTextEncoder
    forward = inspect.signature(encoder.forward).parameters
    expected = {
        "QwenImagePipeline.__call__": _CALL <= _names(QwenImagePipeline.__call__).keys(),
        "QwenImageVAE.decode": tuple(_names(vae.decode))[: len(_DECODE)] == _DECODE,
        "QwenImageTextEncoder.forward": {"input_ids", "kwargs"} <= forward.keys(),
        "FlowMatchScheduler.step": "model_output" in _names(FlowMatchScheduler.step),
        "ControlNetInput": tuple(_names(ControlNetInput))[: len(_CONTROL)] == _CONTROL,
    }
    if missing := [name for name, found in expected.items() if not found]:
        raise ConfigError(
            f"diffsynth {version('diffsynth')} is not usable: {', '.join(missing)} changed; "
            f"install diffsynth=={KNOWN_VERSION}"
        )


def _names(function: object) -> dict[str, object]:
    return dict(inspect.signature(function).parameters) if callable(function) else {}
