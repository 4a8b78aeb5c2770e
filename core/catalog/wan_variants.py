"""The variants of Wan: single models of Wan 2.1, camera and speed control; and their demos."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from core.catalog.refs import ModelRef, Role, WeightFile

WAN_SAFETENSORS: Final = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"
WAN21_T2V: Final = "Wan-AI/Wan2.1-T2V-1.3B"
DEMO_REPO: Final = "diffbox/wan-demo"
_SHARDS: Final = "diffusion_pytorch_model*.safetensors"

DEMO_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "resolution": "256x256",
        "num_frames": 17,
        "num_inference_steps": 8,
        "cfg_scale": 1.0,
        "tiled": False,
    }
)


def _file(role: Role, repo: str, pattern: str = _SHARDS) -> WeightFile:
    return WeightFile(role=role, repo=repo, pattern=pattern)


COMMON: Final = (
    _file("text_encoder", WAN_SAFETENSORS, "models_t5_umt5-xxl-enc-bf16.safetensors"),
    _file("vae", WAN_SAFETENSORS, "Wan2.1_VAE.safetensors"),
    _file("tokenizer", WAN21_T2V, "google/umt5-xxl/*"),
)
"""What every Wan model has besides its own weights."""
DEMO_COMMON: Final = (
    _file("text_encoder", DEMO_REPO, "text_encoder.safetensors"),
    _file("vae", DEMO_REPO, "vae.safetensors"),
    _file("tokenizer", DEMO_REPO, "tokenizer/*"),
)

_CLIP: Final = _file(
    "image_encoder",
    WAN_SAFETENSORS,
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors",
)
# A camera's path is made for one of the two sides of the guidance, so both can't be computed at
# once; and the camera's picture input takes the place of the last frame's.
_CAMERA: Final = frozenset({"input_video", "camera"})
_CAMERA_DEFAULTS: Final = MappingProxyType({"camera_speed": 0.01})
"""As DiffSynth's own examples of these models."""


def _wan21(size: str, *, title: str, defaults: Mapping[str, Any]) -> ModelRef:
    """A Wan 2.1 I2V model. Steps and shift: Wan's own settings for it."""
    return ModelRef(
        id=f"wan2.1-i2v-14b-{size.lower()}",
        title=title,
        family="wan_video",
        workflows=("i2v",),
        files=(_file("high", f"Wan-AI/Wan2.1-I2V-14B-{size}"), _CLIP, *COMMON),
        capabilities=frozenset({"input_video", "tea_cache", "cfg_merge"}),
        defaults=MappingProxyType({"num_inference_steps": 40, **defaults}),
        settings=MappingProxyType({"tea_cache_id": f"Wan2.1-I2V-14B-{size}"}),
        licence="Apache-2.0",
    )


def _fun21(size: str) -> ModelRef:
    """A Fun-Control-Camera model of Wan 2.1."""
    return ModelRef(
        id=f"wan2.1-fun-v1.1-{size.lower()}-control-camera",
        title=f"Wan 2.1 Fun {size}, camera control",
        family="wan_video",
        workflows=("i2v",),
        files=(_file("high", f"alibaba-pai/Wan2.1-Fun-V1.1-{size}-Control-Camera"), _CLIP, *COMMON),
        capabilities=_CAMERA,
        defaults=_CAMERA_DEFAULTS,
        licence="Apache-2.0",
    )


_FUN22: Final = "alibaba-pai/Wan2.2-Fun-A14B-Control-Camera"

WAN_VARIANTS: Final[tuple[ModelRef, ...]] = (
    _wan21("720P", title="Wan 2.1 I2V 14B 720p", defaults={"resolution": "720x1280"}),
    _wan21("480P", title="Wan 2.1 I2V 14B 480p", defaults={"sigma_shift": 3.0}),
    ModelRef(
        id="wan2.2-fun-a14b-control-camera",
        title="Wan 2.2 Fun A14B, camera control",
        family="wan_video",
        workflows=("i2v",),
        files=(
            _file("high", _FUN22, f"high_noise_model/{_SHARDS}"),
            _file("low", _FUN22, f"low_noise_model/{_SHARDS}"),
            *COMMON,
        ),
        capabilities=_CAMERA | {"two_experts", "step_cache"},
        defaults=_CAMERA_DEFAULTS,
        licence="Apache-2.0",
    ),
    _fun21("14B"),
    _fun21("1.3B"),
    ModelRef(
        id="wan2.1-t2v-1.3b-speed",
        title="Wan 2.1 T2V 1.3B, speed control (starts from the picture as a still video)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            _file("high", WAN21_T2V),
            # DiffSynth's examples take it from ModelScope, where it has the same name.
            _file(
                "motion_controller",
                "DiffSynth-Studio/Wan2.1-1.3b-speedcontrol-v1",
                "model.safetensors",
            ),
            *COMMON,
        ),
        capabilities=frozenset({"still_input", "motion_bucket", "tea_cache", "cfg_merge"}),
        defaults=MappingProxyType({"denoising_strength": 0.9}),
        settings=MappingProxyType({"tea_cache_id": "Wan2.1-T2V-1.3B"}),
        licence="Apache-2.0",
    ),
)

WAN_DEMO_VARIANTS: Final[tuple[ModelRef, ...]] = (
    ModelRef(
        id="wan-demo-camera",
        title="Demo of camera control (random weights, CPU)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            _file("high", "diffbox/wan-demo-camera", "high_noise_model.safetensors"),
            _file("low", "diffbox/wan-demo-camera", "low_noise_model.safetensors"),
            *DEMO_COMMON,
        ),
        capabilities=_CAMERA | {"two_experts", "step_cache"},
        defaults=DEMO_DEFAULTS,
        demo=True,
        licence="Apache-2.0",
    ),
    ModelRef(
        id="wan-demo-2.1",
        title="Demo of Wan 2.1 (random weights, CPU)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            _file("high", "diffbox/wan-demo-2.1", "diffusion_model.safetensors"),
            _file("image_encoder", "diffbox/wan-demo-2.1", "image_encoder.safetensors"),
            *DEMO_COMMON,
        ),
        capabilities=frozenset({"input_video", "tea_cache", "cfg_merge"}),
        defaults=DEMO_DEFAULTS,
        settings=MappingProxyType({"tea_cache_id": "Wan2.1-I2V-14B-480P"}),
        demo=True,
        licence="Apache-2.0",
    ),
    ModelRef(
        id="wan-demo-speed",
        title="Demo of speed control (random weights, CPU)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            _file("high", "diffbox/wan-demo-speed", "diffusion_model.safetensors"),
            _file("motion_controller", "diffbox/wan-demo-speed", "motion_controller.safetensors"),
            *DEMO_COMMON,
        ),
        capabilities=frozenset({"still_input", "motion_bucket", "tea_cache", "cfg_merge"}),
        defaults=MappingProxyType({**DEMO_DEFAULTS, "denoising_strength": 0.9}),
        settings=MappingProxyType({"tea_cache_id": "Wan2.1-T2V-1.3B"}),
        demo=True,
        licence="Apache-2.0",
    ),
)
