"""Pipelines with random weights, made where they compute: there is no file to read or to download.

Full ones have the settings and the size of the published models, tiny ones those of the demos.
Tokenizers are the demos' in both: a token is a byte. Numbers are drawn in the pieces in which a
file would be read, so that the placement decides where they lie as it does for files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import Qwen2Tokenizer, Qwen2VLProcessor

from benchmarks.bench_lora import DIT
from core.catalog import Role
from core.pipelines import demo, demo_qwen, qwen_text
from core.pipelines.device import dtype_for
from core.pipelines.loading import LocalModel, nothing, printed_to_log, target_of
from core.pipelines.placement import Placement
from core.pipelines.stock import WanVideoPipeline, skip_model_initialization
from core.pipelines.stock_qwen import (
    ModelPool,
    QwenImageBlockwiseMultiControlNet,
    QwenImagePipeline,
)
from core.protocol import Device

Scale = Literal["full", "tiny"]

SPREAD: Final = 0.02
"""Standard deviation of every weight."""
_STOCK: Final = "diffsynth.models."


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A model's class by its dotted name, and the settings that it is built with."""

    model_class: str
    settings: Mapping[str, Any] = field(default_factory=dict)


WAN: Final[Mapping[Scale, Mapping[str, Part]]] = {
    "full": {
        "dit": Part(model_class=_STOCK + "wan_video_dit.WanModel", settings=DIT),
        "dit2": Part(model_class=_STOCK + "wan_video_dit.WanModel", settings=DIT),
        "text_encoder": Part(model_class=_STOCK + "wan_video_text_encoder.WanTextEncoder"),
        "vae": Part(model_class=_STOCK + "wan_video_vae.WanVideoVAE"),
    },
    "tiny": {
        "dit": Part(model_class=_STOCK + "wan_video_dit.WanModel", settings=demo.DIT),
        "dit2": Part(model_class=_STOCK + "wan_video_dit.WanModel", settings=demo.DIT),
        "text_encoder": Part(
            model_class=_STOCK + "wan_video_text_encoder.WanTextEncoder",
            settings=demo.TEXT_ENCODER,
        ),
        "vae": Part(model_class="core.pipelines.demo_vae.DemoVAE"),
    },
}
QWEN: Final[Mapping[Scale, Mapping[str, Part]]] = {
    "full": {
        "dit": Part(model_class=_STOCK + "qwen_image_dit.QwenImageDiT"),
        "text_encoder": Part(model_class=_STOCK + "qwen_image_text_encoder.QwenImageTextEncoder"),
        "vae": Part(model_class=_STOCK + "qwen_image_vae.QwenImageVAE"),
    },
    "tiny": {
        "dit": Part(model_class="core.pipelines.demo_qwen.DemoQwenDiT"),
        "text_encoder": Part(model_class="core.pipelines.demo_qwen.DemoQwenTextEncoder"),
        "vae": Part(model_class=_STOCK + "qwen_image_vae.QwenImageVAE", settings=demo_qwen.VAE),
    },
}


def wan(scale: Scale, placement: Placement, device: Device, models_dir: Path) -> Any:
    """A WanVideoPipeline of two experts.

    Args:
        scale: of the models.
        placement: where the weights are kept; not "disk".
        device: what computes.
        models_dir: where the demo's tokenizer is made.
    """
    pipe = WanVideoPipeline(device=device.kind, torch_dtype=dtype_for(device))
    _fill(pipe, WAN[scale], placement, device)
    factor = pipe.vae.upsampling_factor * 2
    pipe.height_division_factor = pipe.width_division_factor = factor
    demo.ensure(models_dir)
    # The tokenizer alone, as from_pretrained makes it.
    folder = LocalModel.of([models_dir / demo.FOLDER / "tokenizer"], {}, nothing)
    with printed_to_log():
        pipe.tokenizer = WanVideoPipeline.from_pretrained(
            torch_dtype=pipe.torch_dtype, device=device.kind, tokenizer_config=folder
        ).tokenizer
    return pipe


def qwen(scale: Scale, placement: Placement, device: Device, models_dir: Path) -> Any:
    """A QwenImagePipeline that edits; arguments as for `wan`."""
    qwen_text.leave_rotary_alone()
    pipe = QwenImagePipeline(device=device.kind, torch_dtype=dtype_for(device))
    _fill(pipe, QWEN[scale], placement, device)
    pipe.blockwise_controlnet = QwenImageBlockwiseMultiControlNet([])
    demo_qwen.ensure(models_dir)
    folder = models_dir / demo_qwen.FOLDER
    pipe.tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    pipe.processor = Qwen2VLProcessor.from_pretrained(folder / "processor")
    # The model has to find the pictures' places by the numbers that this tokenizer gives them.
    for config in (pipe.text_encoder.config, pipe.text_encoder.model.config):
        for name in ("image_pad", "video_pad", "vision_start"):
            token = name.replace("pad", "token").replace("start", "start_token")
            number = pipe.tokenizer.convert_tokens_to_ids(f"<|{name}|>")
            setattr(config, f"{token}_id", number)
    qwen_text.as_trained(pipe.text_encoder)
    return pipe


def _fill(pipe: Any, parts: Mapping[str, Part], placement: Placement, device: Device) -> None:
    pool = ModelPool()
    for name, part in parts.items():
        role: Role = "vae" if name == "vae" else "transformer"
        target = target_of(placement, device, pipe.torch_dtype, role)
        if target is None:
            raise SystemExit("--policy disk needs files, and random weights have none")
        fields = placement.fields(pipe.torch_dtype, role)
        kept = LocalModel.of([], fields, nothing).vram_config()
        kept["computation_dtype"] = kept["computation_dtype"] or pipe.torch_dtype
        kept["computation_device"] = kept["computation_device"] or device.kind
        with skip_model_initialization():
            empty = pool.import_model_class(part.model_class)(**part.settings)
        weights = {
            key: tensor.to(target.device)
            if tensor.device.type != "meta"  # a buffer, which is computed
            else torch.empty(tensor.shape, dtype=pipe.torch_dtype, device=target.device)
            .normal_(std=SPREAD)
            .to(target.dtype)
            for key, tensor in empty.state_dict().items()
        }
        model = pool.load_model_file(
            {"model_class": part.model_class, "extra_kwargs": dict(part.settings)},
            "",
            kept,
            vram_limit=placement.vram_limit_gib,
            state_dict=weights,
        )
        setattr(pipe, name, model)
    pipe.vram_management_enabled = pipe.check_vram_management_state()
