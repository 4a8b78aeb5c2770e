"""The demo family: DiffSynth's real classes at a few million parameters, made on first use.

    <models_dir>/base/diffbox/wan-demo/
        {high_noise_model, low_noise_model, text_encoder, vae}.safetensors
        tokenizer/{tokenizer, tokenizer_config}.json

They go through the same catalog, loader and pipeline as the real weights and run on a CPU in
seconds. A file that is damaged, or of an older recipe, is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from core.pipelines import demo_weights
from core.pipelines.demo_vae import DemoVAE
from core.pipelines.demo_weights import Array
from core.pipelines.stock import (
    MODEL_CONFIGS,
    convert_keys_dict_to_single_str,
    skip_model_initialization,
    wan_video_dit,
    wan_video_text_encoder,
)

FOLDER: Final = "base/diffbox/wan-demo"
RECIPE: Final = "1"
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

Shapes = Mapping[str, tuple[int, ...]]


def ensure(models_dir: Path) -> None:
    """Make the files that are missing or damaged. Safe with several workers at once."""
    folder = models_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in _FILES.items():
        path = folder / f"{name}.safetensors"
        if not _is_whole(path):
            _write(path, _sealed(make()))
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    for name, text in _tokenizer_files().items():
        path = tokenizer / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _write(path, text.encode())


def register() -> None:
    """Tell DiffSynth's loader how to recognise the files. Doing it twice is harmless."""
    rows: tuple[tuple[Shapes, str, str, Mapping[str, Any]], ...] = (
        (_dit_shapes(), "wan_video_dit", "diffsynth.models.wan_video_dit.WanModel", DIT),
        (
            _text_encoder_shapes(),
            "wan_video_text_encoder",
            "diffsynth.models.wan_video_text_encoder.WanTextEncoder",
            TEXT_ENCODER,
        ),
        (_vae_shapes(), "wan_video_vae", "core.pipelines.demo_vae.DemoVAE", {}),
    )
    known = {row["model_hash"] for row in MODEL_CONFIGS}
    for shapes, name, cls, settings in rows:
        row: dict[str, Any] = {
            "model_hash": _key_hash(shapes),
            "model_name": name,
            "model_class": cls,
            "extra_kwargs": dict(settings),
        }
        if name == "wan_video_vae":
            row["state_dict_converter"] = (
                "diffsynth.utils.state_dict_converters.wan_video_vae.WanVideoVAEStateDictConverter"
            )
        if row["model_hash"] not in known:
            MODEL_CONFIGS.append(row)


@cache
def _dit_shapes() -> Shapes:
    with skip_model_initialization():
        return _shapes(wan_video_dit.WanModel(**DIT))


@cache
def _text_encoder_shapes() -> Shapes:
    with skip_model_initialization():
        return _shapes(wan_video_text_encoder.WanTextEncoder(**TEXT_ENCODER))


@cache
def _vae_shapes() -> Shapes:
    with skip_model_initialization():
        return _shapes(DemoVAE().model)


def _shapes(model: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _key_hash(shapes: Shapes) -> str:
    """As DiffSynth's hash_model_file: MD5 over names and shapes."""
    text = convert_keys_dict_to_single_str({name: list(shape) for name, shape in shapes.items()})
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


_FILES: Final[dict[str, Callable[[], dict[str, Array]]]] = {
    "high_noise_model": lambda: demo_weights.expert("high", _dit_shapes(), DIT),
    "low_noise_model": lambda: demo_weights.expert("low", _dit_shapes(), DIT),
    "text_encoder": lambda: demo_weights.text_encoder(_text_encoder_shapes()),
    "vae": lambda: demo_weights.vae(_vae_shapes()),
}


def _sealed(weights: dict[str, Array]) -> bytes:
    # One metadata key only: safetensors writes several in random order.
    return save(weights, metadata={"diffbox-demo": _seal(weights)})


def _seal(weights: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(RECIPE.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether the file holds exactly what its seal says, by this recipe."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 1_000_000)))
        return bool(header["__metadata__"]["diffbox-demo"] == _seal(load_file(path)))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return False


def _write(path: Path, content: bytes) -> None:
    """Beside, then renamed: another worker sees the old file or the new one."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}-", delete=False
    ) as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(file.name).replace(path)


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
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }
