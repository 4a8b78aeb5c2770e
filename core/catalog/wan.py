"""The Wan models: Wan 2.2 I2V A14B, its demo, and the variants of both."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from core.catalog.refs import ModelRef, WeightFile
from core.catalog.wan_variants import (
    COMMON,
    DEMO_COMMON,
    DEMO_DEFAULTS,
    DEMO_REPO,
    WAN_DEMO_VARIANTS,
    WAN_VARIANTS,
)

_WAN22: Final = "Wan-AI/Wan2.2-I2V-A14B"
_ABLE: Final = frozenset({"end_image", "input_video", "two_experts", "step_cache", "cfg_merge"})

# high stands before low because DiffSynth takes the first as `dit` and the second as `dit2`,
# and both have the same key hash: swapped, they load without an error and make bad video.
WAN_MODELS: Final[tuple[ModelRef, ...]] = (
    ModelRef(
        id="wan2.2-i2v-a14b",
        title="Wan 2.2 I2V A14B",
        family="wan_video",
        workflows=("i2v", "svi"),
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
            *COMMON,
        ),
        capabilities=_ABLE,
        loras=MappingProxyType({"svi": "svi-2.0-pro"}),
        licence="Apache-2.0",
    ),
    *WAN_VARIANTS,
    ModelRef(
        id="wan-demo",
        title="Demo (random weights, CPU)",
        family="wan_video",
        workflows=("i2v", "svi"),
        files=(
            WeightFile(role="high", repo=DEMO_REPO, pattern="high_noise_model.safetensors"),
            WeightFile(role="low", repo=DEMO_REPO, pattern="low_noise_model.safetensors"),
            *DEMO_COMMON,
        ),
        capabilities=_ABLE,
        defaults=DEMO_DEFAULTS,
        loras=MappingProxyType({"svi": "wan-demo-svi"}),
        demo=True,
        licence="Apache-2.0",
    ),
    *WAN_DEMO_VARIANTS,
)
