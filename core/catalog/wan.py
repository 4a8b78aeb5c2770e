"""The Wan models: Wan 2.2 I2V A14B, and its demo."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from core.catalog.refs import ModelRef, WeightFile

_WAN22 = "Wan-AI/Wan2.2-I2V-A14B"
_WAN_SAFETENSORS = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"
_DEMO = "diffbox/wan-demo"

# high stands before low because DiffSynth takes the first as `dit` and the second as `dit2`,
# and both have the same key hash: swapped, they load without an error and make bad video.
WAN_MODELS: Final[tuple[ModelRef, ...]] = (
    ModelRef(
        id="wan2.2-i2v-a14b",
        title="Wan 2.2 I2V A14B",
        family="wan_video",
        workflows=("i2v",),
        files=(
            WeightFile(
                role="high",
                repo=_WAN22,
                pattern="high_noise_model/diffusion_pytorch_model*.safetensors",
            ),
            WeightFile(
                role="low",
                repo=_WAN22,
                pattern="low_noise_model/diffusion_pytorch_model*.safetensors",
            ),
            WeightFile(
                role="text_encoder",
                repo=_WAN_SAFETENSORS,
                pattern="models_t5_umt5-xxl-enc-bf16.safetensors",
            ),
            WeightFile(role="vae", repo=_WAN_SAFETENSORS, pattern="Wan2.1_VAE.safetensors"),
            WeightFile(
                role="tokenizer", repo="Wan-AI/Wan2.1-T2V-1.3B", pattern="google/umt5-xxl/*"
            ),
        ),
        capabilities=frozenset({"end_image", "input_video", "two_experts"}),
        licence="Apache-2.0",
    ),
    ModelRef(
        id="wan-demo",
        title="Demo (random weights, CPU)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            WeightFile(role="high", repo=_DEMO, pattern="high_noise_model.safetensors"),
            WeightFile(role="low", repo=_DEMO, pattern="low_noise_model.safetensors"),
            WeightFile(role="text_encoder", repo=_DEMO, pattern="text_encoder.safetensors"),
            WeightFile(role="vae", repo=_DEMO, pattern="vae.safetensors"),
            WeightFile(role="tokenizer", repo=_DEMO, pattern="tokenizer/*"),
        ),
        capabilities=frozenset({"end_image", "input_video", "two_experts"}),
        defaults=MappingProxyType(
            {
                "resolution": "256x256",
                "num_frames": 17,
                "num_inference_steps": 8,
                "cfg_scale": 1.0,
                "tiled": False,
            }
        ),
        demo=True,
        licence="Apache-2.0",
    ),
)
