"""The Qwen demo family: DiffSynth's real classes at small size, made on first use.

    <models_dir>/base/diffbox/qwen-demo/
        {transformer, text_encoder, vae}.safetensors
        {controlnet_canny, controlnet_depth, controlnet_inpaint}.safetensors
        tokenizer/…  processor/…

Where DiffSynth fixes the size in a constructor, a subclass builds the same parts at another one:
names, order and forward passes are the stock ones, so that loader, LoRAs, controlnets and hooks
meet what they meet in the real model. DiffSynth's loader imports the classes by dotted name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from core.pipelines import demo_files, demo_loras, demo_qwen_weights
from core.pipelines.demo_files import DemoModel, Shapes, shapes_of
from core.pipelines.demo_weights import Array
from core.pipelines.stock import skip_model_initialization
from core.pipelines.stock_qwen import (
    qwen_image_controlnet,
    qwen_image_dit,
    qwen_image_text_encoder,
    qwen_image_vae,
)

FOLDER: Final = "base/diffbox/qwen-demo"
RECIPE: Final = "1"
"""Counts up when the weights change, so that files of an older recipe are replaced."""

LAYERS: Final = 4
TEXT_DIM: Final = 64
AXES: Final = (8, 16, 16)
HEADS: Final = 4
DIM: Final = HEADS * sum(AXES)
TOKEN: Final = 64
"""Numbers of an image token: 16 channels of 2 x 2 latents."""
VAE: Final[Mapping[str, Any]] = {"base_dim": 16, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
_CONTROL: Final = {"num_layers": LAYERS, "dim": DIM}
CONTROLNETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "canny": _CONTROL,
    "depth": _CONTROL,
    "inpaint": {**_CONTROL, "additional_in_dim": 4},
}

_SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_BYTES: Final = 256
_TEXT_ROPE: Final = {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 1e6}


class DemoQwenDiT(qwen_image_dit.QwenImageDiT):  # type: ignore[misc]  # diffsynth is untyped
    """The stock double stream model, 4 layers of 4 heads."""

    def __init__(self) -> None:
        # Not QwenImageDiT's: it would build the full-size model first.
        torch.nn.Module.__init__(self)
        stock = qwen_image_dit
        self.pos_embed = stock.QwenEmbedRope(theta=10000, axes_dim=list(AXES), scale_rope=True)
        self.time_text_embed = stock.TimestepEmbeddings(
            256, DIM, diffusers_compatible_format=True, scale=1000, align_dtype_to_timestep=False
        )
        self.txt_norm = stock.RMSNorm(TEXT_DIM, eps=1e-6)
        self.img_in = torch.nn.Linear(TOKEN, DIM)
        self.txt_in = torch.nn.Linear(TEXT_DIM, DIM)
        self.transformer_blocks = torch.nn.ModuleList(
            stock.QwenImageTransformerBlock(
                dim=DIM, num_attention_heads=HEADS, attention_head_dim=sum(AXES)
            )
            for _ in range(LAYERS)
        )
        self.norm_out = stock.AdaLayerNorm(DIM, single=True)
        self.proj_out = torch.nn.Linear(DIM, TOKEN)


class DemoQwenTextEncoder(
    qwen_image_text_encoder.QwenImageTextEncoder  # type: ignore[misc]  # diffsynth is untyped
):
    """The stock wrapper round a Qwen2.5-VL of 2 layers for text and 2 for pictures."""

    def __init__(self) -> None:
        # Not QwenImageTextEncoder's: it would build the full-size model first.
        torch.nn.Module.__init__(self)
        token = {name: _BYTES + index for index, name in enumerate(_SPECIAL)}
        config = Qwen2_5_VLConfig(
            image_token_id=token["<|image_pad|>"],
            video_token_id=token["<|video_pad|>"],
            vision_start_token_id=token["<|vision_start|>"],
            vision_end_token_id=token["<|vision_end|>"],
            text_config={
                "vocab_size": _BYTES + len(_SPECIAL),
                "hidden_size": TEXT_DIM,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "rope_parameters": dict(_TEXT_ROPE),
                "bos_token_id": token["<|endoftext|>"],
                "eos_token_id": token["<|im_end|>"],
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": TEXT_DIM,
                "fullatt_block_indexes": [1],
            },
        )
        self.model = Qwen2_5_VLModel(config)
        self.lm_head = torch.nn.Linear(TEXT_DIM, _BYTES + len(_SPECIAL), bias=False)
        self.config = config


def ensure(models_dir: Path) -> None:
    """Make the files that are missing or damaged. Safe with several workers at once."""
    demo_files.ensure(models_dir / FOLDER, RECIPE, _FILES, _texts())
    demo_loras.ensure_qwen(models_dir, _dit_shapes())


def register() -> None:
    """Tell DiffSynth's loader how to recognise the files. Doing it twice is harmless."""
    demo_files.register(
        (
            DemoModel(
                shapes=_dit_shapes(),
                name="qwen_image_dit",
                model_class=f"{__name__}.{DemoQwenDiT.__name__}",
            ),
            DemoModel(
                shapes=_text_encoder_shapes(),
                name="qwen_image_text_encoder",
                model_class=f"{__name__}.{DemoQwenTextEncoder.__name__}",
                converter="diffsynth.utils.state_dict_converters.qwen_image_text_encoder."
                "QwenImageTextEncoderStateDictConverter",
            ),
            DemoModel(
                shapes=_vae_shapes(),
                name="qwen_image_vae",
                model_class="diffsynth.models.qwen_image_vae.QwenImageVAE",
                settings=VAE,
            ),
            *(
                DemoModel(
                    shapes=_controlnet_shapes(kind),
                    name="qwen_image_blockwise_controlnet",
                    model_class="diffsynth.models.qwen_image_controlnet."
                    "QwenImageBlockWiseControlNet",
                    settings=settings,
                )
                for kind, settings in CONTROLNETS.items()
            ),
        )
    )


@cache
def _dit_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(DemoQwenDiT())


@cache
def _text_encoder_shapes() -> Shapes:
    """With the names of the published files, which the loader's converter expects."""
    with skip_model_initialization():
        shapes = shapes_of(DemoQwenTextEncoder())
    return {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): shape
        for name, shape in shapes.items()
    }


@cache
def _vae_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(qwen_image_vae.QwenImageVAE(**VAE))


@cache
def _controlnet_shapes(kind: str) -> Shapes:
    with skip_model_initialization():
        return shapes_of(qwen_image_controlnet.QwenImageBlockWiseControlNet(**CONTROLNETS[kind]))


def _controlnet(kind: str) -> dict[str, Array]:
    return demo_qwen_weights.controlnet(kind, _controlnet_shapes(kind))


_FILES: Final[dict[str, Callable[[], dict[str, Array]]]] = {
    "transformer.safetensors": lambda: demo_qwen_weights.transformer(_dit_shapes(), AXES, HEADS),
    "text_encoder.safetensors": lambda: demo_qwen_weights.text_encoder(_text_encoder_shapes()),
    "vae.safetensors": lambda: demo_qwen_weights.vae(_vae_shapes()),
    "controlnet_canny.safetensors": lambda: _controlnet("canny"),
    "controlnet_depth.safetensors": lambda: _controlnet("depth"),
    "controlnet_inpaint.safetensors": lambda: _controlnet("inpaint"),
}


@cache
def _texts() -> dict[str, str]:
    """A byte-level tokenizer with Qwen's special tokens, and the same beside a processor."""
    vocab = {byte: n for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(_BYTES + index): {"content": name, "special": True, **plain}
            for index, name in enumerate(_SPECIAL)
        },
        "additional_special_tokens": list(_SPECIAL[1:]),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131_072,
    }
    tokenizer = {
        "vocab.json": json.dumps(vocab),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }
    return {
        **{f"tokenizer/{name}": text for name, text in tokenizer.items()},
        **{f"processor/{name}": text for name, text in tokenizer.items()},
        "processor/preprocessor_config.json": json.dumps(_PICTURES, indent=2),
    }


_PICTURES: Final = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 3136, "longest_edge": 12845056},
    "min_pixels": 3136,
    "max_pixels": 12845056,
}
"""As published with Qwen Image Edit."""
