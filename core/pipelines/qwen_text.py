"""Qwen2.5-VL under a newer transformers than the one that DiffSynth was written for.

DiffSynth 2.1.12 hands over tokens, pixels and grids. Since version 5 transformers lays out the
rows and columns of a picture's tokens only if it is also told which tokens those are, and else
numbers them as text, without a word: prompts would be encoded in another way than in training.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from core.pipelines.stock_qwen import VRAM_MANAGEMENT_MODULE_MAPS, qwen_image_text_encoder

_ENCODER: Final = (
    f"{qwen_image_text_encoder.__name__}.{qwen_image_text_encoder.QwenImageTextEncoder.__name__}"
)


def leave_rotary_alone() -> None:
    """Take the rotary embeddings out of what DiffSynth moves and casts with the weights.

    They have no weights, bring their frequencies to the device themselves, and one of the two has
    another name by now, with which offloading would end in an AttributeError.
    """
    moved = VRAM_MANAGEMENT_MODULE_MAPS[_ENCODER]
    for name in [name for name in moved if name.endswith("RotaryEmbedding")]:
        del moved[name]


def as_trained(encoder: Any) -> None:
    """Give the text encoder what training had: rows and columns of pictures, exact frequencies.

    Args:
        encoder: a loaded QwenImageTextEncoder, wrapped for offloading or not.
    """
    encoder.register_forward_pre_hook(_with_token_types, with_kwargs=True)
    for module in encoder.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            # Loading casts buffers to bfloat16 as well, which has 8 bits: at position 500 the
            # fastest frequencies are then off by about a radian.
            exact = type(module)(module.config)
            for name in ("inv_freq", "original_inv_freq"):
                buffer = getattr(module, name)
                setattr(module, name, getattr(exact, name).to(buffer.device, torch.float32))


def _with_token_types(
    encoder: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    tokens = given.get("input_ids")
    if tokens is None or given.get("image_grid_thw") is None:
        return args, given
    pictures = (tokens == encoder.config.image_token_id).int()
    return args, {**given, "mm_token_type_ids": pictures}
