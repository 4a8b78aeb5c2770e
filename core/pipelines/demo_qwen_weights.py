"""Initial weights of the Qwen demo: random ones, and a picture to be seen.

The VAE keeps colours as the Wan demo's does. In the transformer's first block every token of the
new picture attends to the token at its own place in the first edited picture, and the output
pulls the noise towards what it finds there. All other blocks start small: prompt, further
pictures and controlnets change the result without hiding it.
"""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from core.pipelines import demo_weights
from core.pipelines.demo_weights import Array, Shapes, usual

_PULL: Final = 2.5
"""Velocity by distance from the edited picture: e^-2.5 of the noise is left at the end."""
_LEVEL: Final = 16.0
"""Two constant channels, + and -: so large that layer norms leave the others nearly linear."""
_FRAME: Final = math.sqrt(10)
_PLACE: Final = math.sqrt(5)
_COS_1: Final = 0.5403023
_SIN_1: Final = 0.8414710
_SHARPNESS: Final = 3.5
"""Of the first block's attention: a neighbour one token away gets e^-5 of the weight."""
_PICKY: Final = 3.0
"""Of the other blocks' attention: so that single words of the prompt are looked at."""
_SMALL: Final = 0.25
_NAMES: Final = (
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
)
"""Names of the Qwen VAE's parts, and what the same parts are called in Wan's."""


def text_encoder(shapes: Shapes) -> dict[str, Array]:
    """Plain random weights of sensible scale."""
    return {name: usual(f"qwen/text_encoder/{name}", shape) for name, shape in shapes.items()}


def controlnet(kind: str, shapes: Shapes) -> dict[str, Array]:
    """Random weights whose outputs are small beside the tokens that they are added to."""
    weights = {name: usual(f"qwen/{kind}/{name}", shape) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith("output_proj.weight"):
            weights[name] *= np.float32(_SMALL)
    return weights


def vae(shapes: Shapes) -> dict[str, Array]:
    """The Wan demo's VAE: it is the same architecture under other names."""
    as_wan = {_wan_name(name): name for name in shapes}
    made = demo_weights.vae({wan: shapes[name] for wan, name in as_wan.items()})
    return {as_wan[wan]: array for wan, array in made.items()}


def transformer(shapes: Shapes, axes: tuple[int, int, int], heads: int) -> dict[str, Array]:
    """The DiT.

    Args:
        shapes: of its tensors, by name.
        axes: numbers of a head that turn with frame, row and column.
        heads: of each block.
    """
    weights = {name: usual(f"qwen/transformer/{name}", shape) for name, shape in shapes.items()}
    token, dim = shapes["proj_out.weight"]
    noisy, given, level = np.arange(token), token + np.arange(token), 2 * token
    for name, array in weights.items():
        if name.endswith(("to_add_out.weight", "mlp.net.2.weight", "norm_out.linear.weight")):
            weights[name] *= np.float32(_SMALL)
        if "norm_q" in name or "norm_added_k" in name:
            array[:] = _PICKY
        if name.endswith("img_mod.1.bias"):
            array[2 * dim : 3 * dim] = _SMALL  # the gate of attention
        if ".attn.to_" in name or "img_mlp.net.0" in name:
            array[..., level : level + 2] = 0  # what is constant shall not drown the rest
    entry, out = weights["img_in.weight"], weights["proj_out.weight"]
    entry[:] = 0
    entry[noisy, noisy] = 1
    weights["img_in.bias"][level : level + 2] = _LEVEL, -_LEVEL
    # A layer norm divides by this, as long as the two constant channels are the largest.
    spread = _LEVEL * math.sqrt(2 / dim)
    out *= np.float32(0.02)
    out[noisy, noisy], out[noisy, given] = _PULL * spread, -_PULL * spread
    _look_at_own_place(weights, axes, heads, token, spread)
    return weights


def _look_at_own_place(
    weights: dict[str, Array], axes: tuple[int, int, int], heads: int, token: int, spread: float
) -> None:
    """Block 0 writes what the first edited picture has at a token's place beside the token."""
    block = "transformer_blocks.0."
    attention = f"{block}attn."
    head, dim, part = sum(axes), heads * sum(axes), token // heads
    query, key, text = np.zeros(head), np.zeros(head), np.zeros(head)
    # Numbers 2i and 2i + 1 turn with the i-th frequency of their axis: 1, 1/3, 1/10 a token.
    row, column = axes[0], axes[0] + axes[1]
    for start in (row, column):
        query[start : start + 6 : 2] = key[start : start + 6 : 2] = _PLACE
    # The new picture is frame 0, the first edited one frame 1: keys are turned back by one.
    query[0] = _FRAME
    key[0:2] = _FRAME * _COS_1, -_FRAME * _SIN_1
    text[[axes[0] - 1, column - 1]] = _FRAME  # where no query looks
    for name, pattern in (("to_q", query), ("to_k", key), ("add_k_proj", text)):
        weights[f"{attention}{name}.bias"][:] = np.tile(pattern, heads)
    for name in ("to_q", "to_k"):
        weights[f"{attention}{name}.weight"][:] = 0
        weights[f"{attention}norm_{name[-1]}.weight"][:] = _SHARPNESS
    value, out = weights[f"{attention}to_v.weight"], weights[f"{attention}to_out.0.weight"]
    value[:] = 0
    out[:] = 0
    for index in range(token):
        place = index // part * head + index % part
        value[place, index] = 1
        out[token + index, place] = spread
    weights[f"{block}img_mod.1.bias"][2 * dim : 3 * dim] = 1


def _wan_name(name: str) -> str:
    for ours, wans in _NAMES:
        name = re.sub(ours, wans, name)
    return name
