"""The demo family: DiffSynth's real classes at a few million parameters, made on first use.

    <models_dir>/base/diffbox/wan-demo/
        {high_noise_model, low_noise_model, text_encoder, vae}.safetensors
        tokenizer/{tokenizer, tokenizer_config}.json

They go through the same catalog, loader and pipeline as the real weights and run on a CPU in
seconds. A file that is damaged, or of an older recipe, is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from core.pipelines import demo_files, demo_loras, demo_weights
from core.pipelines.demo_files import DemoModel, Shapes, shapes_of
from core.pipelines.demo_vae import DemoVAE
from core.pipelines.demo_weights import Array
from core.pipelines.stock import (
    skip_model_initialization,
    wan_video_dit,
    wan_video_text_encoder,
)

FOLDER: Final = "base/diffbox/wan-demo"
RECIPE: Final = "2"
"""Counts up when the weights change, so that files of an older recipe are replaced."""

DIT: Final[Mapping[str, Any]] = {
    "has_image_input": False,
    "patch_size": [1, 2, 2],
    "in_dim": 36,
    "dim": 128,
    "ffn_dim": 512,
    "freq_dim": 64,
    "text_dim": 64,
    "out_dim": 16,
    "num_heads": 4,
    "num_layers": 6,
    "eps": 1e-06,
    "require_clip_embedding": False,
}
TEXT_ENCODER: Final[Mapping[str, Any]] = {
    "vocab": 259,
    "dim": 64,
    "dim_attn": 64,
    "dim_ffn": 128,
    "num_heads": 4,
    "num_layers": 2,
}


def ensure(models_dir: Path) -> None:
    """Make the files that are missing or damaged. Safe with several workers at once."""
    demo_files.ensure(models_dir / FOLDER, RECIPE, _FILES, _tokenizer_files())
    demo_loras.ensure_wan(models_dir, _dit_shapes())


def register() -> None:
    """Tell DiffSynth's loader how to recognise the files. Doing it twice is harmless."""
    demo_files.register(
        (
            DemoModel(
                shapes=_dit_shapes(),
                name="wan_video_dit",
                model_class="diffsynth.models.wan_video_dit.WanModel",
                settings=DIT,
            ),
            DemoModel(
                shapes=_text_encoder_shapes(),
                name="wan_video_text_encoder",
                model_class="diffsynth.models.wan_video_text_encoder.WanTextEncoder",
                settings=TEXT_ENCODER,
            ),
            DemoModel(
                shapes=_vae_shapes(),
                name="wan_video_vae",
                model_class="core.pipelines.demo_vae.DemoVAE",
                converter="diffsynth.utils.state_dict_converters.wan_video_vae."
                "WanVideoVAEStateDictConverter",
            ),
        )
    )


@cache
def _dit_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(wan_video_dit.WanModel(**DIT))


@cache
def _text_encoder_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(wan_video_text_encoder.WanTextEncoder(**TEXT_ENCODER))


@cache
def _vae_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(DemoVAE().model)


_FILES: Final[dict[str, Callable[[], dict[str, Array]]]] = {
    "high_noise_model.safetensors": lambda: demo_weights.expert("high", _dit_shapes(), DIT),
    "low_noise_model.safetensors": lambda: demo_weights.expert("low", _dit_shapes(), DIT),
    "text_encoder.safetensors": lambda: demo_weights.plain("text_encoder", _text_encoder_shapes()),
    "vae.safetensors": lambda: demo_weights.vae(_vae_shapes()),
}


@cache
def _tokenizer_files() -> dict[str, str]:
    """A byte-level tokenizer: three special tokens, then one a byte."""
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    end = special[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, vocab[end])]
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": special[0],
        "eos_token": end,
        "unk_token": special[2],
        "model_max_length": 512,
    }
    return {
        "tokenizer/tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer/tokenizer_config.json": json.dumps(settings, indent=2),
    }
