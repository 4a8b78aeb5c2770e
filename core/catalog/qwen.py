"""The Qwen Image Edit models and their controlnets."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal

from core.catalog.refs import ControlnetRef, ModelRef, WeightFile

_BASE: Final = "Qwen/Qwen-Image"
_DEMO: Final = "diffbox/qwen-demo"
_CAPABILITIES: Final = frozenset({"controlnet"})
_MEGAPIXEL: Final = 1024 * 1024

_REAL_IDS: Final = ("qwen-image-edit-2511", "qwen-image-edit-2509")
_DEMO_IDS: Final = ("qwen-demo", "qwen-demo-2509")


def _edit(version: str, *, zero_cond_t: bool) -> ModelRef:
    """A published variant; only its transformer is its own.

    `zero_cond_t`: edited pictures are modulated as free of noise; 2511 is trained so, and nothing
    in the file tells it. `area`: pixels that pictures are brought to, as in training.
    """
    return ModelRef(
        id=f"qwen-image-edit-{version}",
        title=f"Qwen Image Edit {version}",
        family="qwen_image",
        workflows=("qwen",),
        files=(
            WeightFile(
                role="transformer",
                repo=f"Qwen/Qwen-Image-Edit-{version}",
                pattern="transformer/diffusion_pytorch_model*.safetensors",
            ),
            WeightFile(role="text_encoder", repo=_BASE, pattern="text_encoder/model*.safetensors"),
            WeightFile(role="vae", repo=_BASE, pattern="vae/diffusion_pytorch_model.safetensors"),
            WeightFile(role="tokenizer", repo=_BASE, pattern="tokenizer/*"),
            WeightFile(role="processor", repo="Qwen/Qwen-Image-Edit", pattern="processor/*"),
        ),
        capabilities=_CAPABILITIES,
        settings=MappingProxyType({"zero_cond_t": zero_cond_t, "area": _MEGAPIXEL}),
        licence="Apache-2.0",
    )


def _demo(id_: str, title: str, *, zero_cond_t: bool) -> ModelRef:
    return ModelRef(
        id=id_,
        title=title,
        family="qwen_image",
        workflows=("qwen",),
        files=(
            WeightFile(role="transformer", repo=_DEMO, pattern="transformer.safetensors"),
            WeightFile(role="text_encoder", repo=_DEMO, pattern="text_encoder.safetensors"),
            WeightFile(role="vae", repo=_DEMO, pattern="vae.safetensors"),
            WeightFile(role="tokenizer", repo=_DEMO, pattern="tokenizer/*"),
            WeightFile(role="processor", repo=_DEMO, pattern="processor/*"),
        ),
        capabilities=_CAPABILITIES,
        defaults=MappingProxyType({"num_inference_steps": 8, "cfg_scale": 1.0}),
        settings=MappingProxyType({"zero_cond_t": zero_cond_t, "area": 256 * 256}),
        demo=True,
        licence="Apache-2.0",
    )


QWEN_MODELS: Final[tuple[ModelRef, ...]] = (
    _edit("2511", zero_cond_t=True),
    _edit("2509", zero_cond_t=False),
    _demo("qwen-demo", "Demo (random weights, CPU)", zero_cond_t=True),
    _demo("qwen-demo-2509", "Demo as 2509 (random weights, CPU)", zero_cond_t=False),
)


def _controlnets(kind: Literal["canny", "depth", "inpaint"]) -> tuple[ControlnetRef, ...]:
    word = kind.capitalize()
    return (
        ControlnetRef(
            id=f"qwen-image-{kind}",
            title=f"Qwen Image {word}",
            family="qwen_image",
            kind=kind,
            models=_REAL_IDS,
            file=WeightFile(
                role="controlnet",
                repo=f"DiffSynth-Studio/Qwen-Image-Blockwise-ControlNet-{word}",
                pattern="model.safetensors",
            ),
            licence="Apache-2.0",
        ),
        ControlnetRef(
            id=f"qwen-demo-{kind}",
            title=f"Demo {word}",
            family="qwen_image",
            kind=kind,
            models=_DEMO_IDS,
            file=WeightFile(
                role="controlnet", repo=_DEMO, pattern=f"controlnet_{kind}.safetensors"
            ),
            demo=True,
            licence="Apache-2.0",
        ),
    )


CONTROLNETS: Final[tuple[ControlnetRef, ...]] = (
    *_controlnets("canny"),
    *_controlnets("depth"),
    *_controlnets("inpaint"),
)
