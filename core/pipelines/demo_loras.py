"""LoRAs for the demo models, each written in another of the formats that are in use.

    <models_dir>/lora/diffbox/wan-demo/
        svi_{high,low}         PEFT, bare names, as SVI's own pair
        lightning_{high,low}   down, up and alpha below `diffusion_model.`, as LightX2V's
        style                  down, up and alpha, names with underscores, as kohya's trainers
    <models_dir>/lora/diffbox/qwen-demo/
        lightning              down, up and alpha, bare names, as LightX2V's
        style                  PEFT below `transformer.`, as diffusers'

The two styles swap red and blue; the others disturb attention and feed forward a little, so that it
can be seen that they are on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from core.pipelines import demo_files
from core.pipelines.demo_files import Shapes
from core.pipelines.demo_weights import Array, usual

RECIPE: Final = "1"
"""Counts up when the files change, so that those of an older recipe are replaced."""

_FOLDER: Final = "lora/diffbox"
_RANK: Final = 4
_ALPHA: Final = 8.0
_CHANNELS: Final = 16
_PLACES: Final = 4
"""A token is 2 x 2 latents."""
_COPIES: Final = 5
"""How often red, green and blue stand one after the other in the latent channels."""
# NOTE: as strongly as the demo models pull towards the picture (demo_weights.expert for the low
# expert, demo_qwen_weights.transformer).
_WAN_PULL: Final = 1.1
_QWEN_PULL: Final = 2.5 * 16.0 * math.sqrt(2)
# How far the other LoRAs change the picture: a few of 255 levels.
_WAN_DISTURBANCE: Final = 4.0
_QWEN_DISTURBANCE: Final = 0.25

_WAN_BRANCHES: Final = re.compile(
    r"(blocks\.\d+\.(?:(?:self|cross)_attn\.[qkvo]|ffn\.[02]))\.weight"
)
_QWEN_BRANCHES: Final = re.compile(
    r"(transformer_blocks\.\d+\.(?:attn\.(?:to|add)_\w+(?:\.0)?|(?:img|txt)_mlp\.net\.[\w.]+?))"
    r"\.weight"
)

Low = Mapping[str, tuple[Array, Array]]
"""A (rank, in) and B (out, rank) by module."""
Tensors = dict[str, Array]
Shape = tuple[int, ...]


def ensure_wan(models_dir: Path, shapes: Shapes) -> None:
    """Make those of the Wan demo that are missing or damaged; `shapes` are its DiT's."""

    def style() -> Tensors:
        # The given picture's features stand behind the noise's; the head writes place by place.
        return _kohya(
            {
                "head.head": _swap(
                    shapes["head.head.weight"],
                    feature=lambda channel, place: 4 * (_CHANNELS + channel) + place,
                    row=lambda channel, place: _CHANNELS * place + channel,
                    gain=_WAN_PULL,
                )
            },
            prefix="lora_unet_",
            separator="_",
        )

    def lightning(expert: str) -> Tensors:
        low = _wan_disturbance(f"lightning/{expert}", shapes)
        return _kohya(low, prefix="diffusion_model.")

    def svi(expert: str) -> Tensors:
        return _peft(_wan_disturbance(f"svi/{expert}", shapes), adapter=".default")

    files: dict[str, Callable[[], Tensors]] = {"style.safetensors": style}
    for expert in ("high", "low"):
        files[f"svi_{expert}.safetensors"] = partial(svi, expert)
        files[f"lightning_{expert}.safetensors"] = partial(lightning, expert)
    demo_files.ensure(models_dir / _FOLDER / "wan-demo", RECIPE, files, {})


def ensure_qwen(models_dir: Path, shapes: Shapes) -> None:
    """Make those of the Qwen demo that are missing or damaged; `shapes` are its transformer's."""
    token, dim = shapes["proj_out.weight"]

    def style() -> Tensors:
        swap = _swap(
            (token, dim),
            feature=lambda channel, place: token + 4 * channel + place,
            row=lambda channel, place: 4 * channel + place,
            gain=_QWEN_PULL / math.sqrt(dim),
        )
        return _peft({"proj_out": swap}, prefix="transformer.")

    def lightning() -> Tensors:
        low = _disturbance("qwen/lightning", shapes, _QWEN_BRANCHES, _QWEN_DISTURBANCE)
        return _kohya(low)

    files = {"style.safetensors": style, "lightning.safetensors": lightning}
    demo_files.ensure(models_dir / _FOLDER / "qwen-demo", RECIPE, files, {})


def _swap(
    shape: Shape,
    *,
    feature: Callable[[int, int], int],
    row: Callable[[int, int], int],
    gain: float,
) -> tuple[Array, Array]:
    """Red where the picture has blue and the other way round, one rank a place.

    Args:
        shape: (out, in) of the last Linear, which writes the velocity.
        feature: where its input has (channel, place) of the given picture.
        row: where its output has (channel, place).
        gain: with which it subtracts the given picture.
    """
    down = np.zeros((_PLACES, shape[1]), np.float32)
    up = np.zeros((shape[0], _PLACES), np.float32)
    for place in range(_PLACES):
        for red in range(0, 3 * _COPIES, 3):
            blue = red + 2
            down[place, feature(red, place)] = 1 / _COPIES
            down[place, feature(blue, place)] = -1 / _COPIES
            up[row(red, place), place], up[row(blue, place), place] = gain, -gain
    return down, up


def _wan_disturbance(name: str, shapes: Shapes) -> Low:
    return _disturbance(f"wan/{name}", shapes, _WAN_BRANCHES, _WAN_DISTURBANCE)


def _disturbance(name: str, shapes: Shapes, branches: re.Pattern[str], size: float) -> Low:
    """Random matrices for the modules whose weights `branches` names."""
    found = [(match[1], shapes[key]) for key in shapes if (match := branches.fullmatch(key))]
    return {
        module: (
            usual(f"{name}/{module}/A", (_RANK, inputs)),
            usual(f"{name}/{module}/B", (outputs, _RANK)) * np.float32(size),
        )
        for module, (outputs, inputs) in found
    }


def _peft(low: Low, *, prefix: str = "", adapter: str = "") -> Tensors:
    tensors: Tensors = {}
    for module, (down, up) in low.items():
        tensors[f"{prefix}{module}.lora_A{adapter}.weight"] = down
        tensors[f"{prefix}{module}.lora_B{adapter}.weight"] = up
    return tensors


def _kohya(low: Low, *, prefix: str = "", separator: str = ".") -> Tensors:
    tensors: Tensors = {}
    for module, (down, up) in low.items():
        name = prefix + module.replace(".", separator)
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up * np.float32(len(down) / _ALPHA)
        tensors[f"{name}.alpha"] = np.array(_ALPHA, np.float32)
    return tensors
