"""How LoRA files spell their tensors, and what a file is recognised as."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.loras import QWEN, WAN, Shelf, kohya, peft, refused, unet, wan_linears


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# --- spellings -----------------------------------------------------------------------------------


def diffusers_wan(module: str) -> str:
    for ours, theirs in (
        ("self_attn.o", "attn1.to_out.0"),
        ("cross_attn.o", "attn2.to_out.0"),
        ("self_attn.", "attn1.to_"),
        ("cross_attn.", "attn2.to_"),
        ("ffn.0", "ffn.net.0.proj"),
        ("ffn.2", "ffn.net.2"),
    ):
        module = module.replace(ours, theirs)
    return module


DIFFUSERS = {diffusers_wan(module): shape for module, shape in WAN.items()}


@pytest.mark.parametrize(
    "shapes",
    [
        peft(WAN),
        peft(WAN, adapter=".default"),
        peft(WAN, prefix="diffusion_model."),
        peft(WAN, prefix="base_model.model."),
        peft(WAN, prefix="base_model.model.diffusion_model."),
        peft(WAN, prefix="model.diffusion_model.", adapter=".high"),
        peft(DIFFUSERS, prefix="transformer."),
        kohya(WAN),
        kohya(WAN, prefix="diffusion_model."),
        kohya(WAN, prefix="lora_unet_", separator="_"),
        kohya(DIFFUSERS, prefix="lora_transformer_", separator="_"),
    ],
    ids=lambda shapes: next(iter(shapes)),
)
def test_every_common_spelling_finds_the_bases_modules(
    shelf: Shelf, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    use = shelf.use(shelf.put("a.safetensors", shapes))
    assert set(use.pairs) == set(WAN)
    assert use.left_out == 0
    assert {pair.rank for pair in use.pairs.values()} == {4}


@pytest.mark.parametrize(
    "shapes",
    [
        peft(QWEN),
        peft(QWEN, prefix="transformer.", adapter=".default"),
        kohya(QWEN, prefix="diffusion_model."),
        kohya(QWEN, prefix="lora_unet_", separator="_"),
        {
            f"transformer.{name}.lora.{side}.weight": shape
            for name, (outputs, inputs) in QWEN.items()
            for side, shape in (("down", (8, inputs)), ("up", (outputs, 8)))
        },
    ],
    ids=lambda shapes: next(iter(shapes)),
)
def test_and_so_for_qwen(shelf: Shelf, shapes: Mapping[str, tuple[int, ...]]) -> None:
    name = shelf.put("a.safetensors", shapes)
    use = shelf.use(name, model="qwen-image-edit-2511", expert="transformer")
    assert set(use.pairs) == set(QWEN)


def test_alpha_is_found_beside_its_matrices(shelf: Shelf) -> None:
    use = shelf.use(shelf.put("a.safetensors", kohya(WAN, prefix="diffusion_model.")))
    pair = use.pairs["blocks.0.ffn.0"]
    assert pair.alpha == "diffusion_model.blocks.0.ffn.0.alpha"
    assert (pair.down_shape, pair.up_shape) == ((4, 5120), (13824, 4))


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ('{"transformer.lora_alpha": 8}', (2.0, 2.0)),
        ('{"transformer.lora_alpha": 8, "transformer.use_rslora": true}', (4.0, 4.0)),
        ('{"lora_alpha": 4, "alpha_pattern": {"0.ffn.0": 16}}', (1.0, 4.0)),
        ("{}", (1.0, 1.0)),
        ("not JSON", (1.0, 1.0)),
    ],
)
def test_alpha_in_pefts_metadata_counts(
    shelf: Shelf, settings: str, scales: tuple[float, float]
) -> None:
    name = shelf.put("a.safetensors", peft(WAN), lora_adapter_metadata=settings)
    pairs = shelf.use(name).pairs
    assert (pairs["blocks.1.ffn.0"].scale, pairs["blocks.0.ffn.0"].scale) == scales


# --- what it seems to be for ---------------------------------------------------------------------

FLUX = {f"double_blocks.{n}.img_attn.qkv": (9216, 3072) for n in range(19)} | {
    f"single_blocks.{n}.linear1": (21504, 3072) for n in range(38)
}
HUNYUAN = {f"double_blocks.{n}.img_attn_qkv": (9216, 3072) for n in range(20)}


@pytest.mark.parametrize(
    ("shapes", "title"),
    [
        (kohya(unet(2048)), "SDXL"),
        (kohya(unet(768)), "Stable Diffusion 1.5"),
        (kohya(unet(1024)), "Stable Diffusion 2"),
        (
            peft(
                {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (640, 2048)},
                prefix="base_model.model.",
            ),
            "SDXL",
        ),
        (peft(FLUX, prefix="diffusion_model."), "Flux"),
        (kohya(FLUX, prefix="lora_unet_", separator="_"), "Flux"),
        (
            peft({"single_transformer_blocks.37.attn.to_q": (3072, 3072)}, prefix="transformer."),
            "Flux",
        ),
        (peft({"double_stream_modulation_img.lin": (1, 6144)}), "Flux 2"),
        (peft(HUNYUAN), "HunyuanVideo"),
        (kohya(HUNYUAN, prefix="lora_unet_", separator="_"), "HunyuanVideo"),
        (peft(wan_linears(1536, 8960, 2)), "Wan 2.1 1.3B"),
        (peft(wan_linears(3072, 14336, 2)), "Wan 2.2 5B"),
        (
            peft({**wan_linears(5120, 13824, 2), "blocks.0.cross_attn.k_img": (5120, 5120)}),
            "Wan 2.1 I2V 14B",
        ),
        (peft(DIFFUSERS, prefix="transformer."), "Wan 14B (2.1 or 2.2)"),
        (peft(QWEN, prefix="transformer."), "Qwen Image"),
        (kohya(QWEN, prefix="lora_unet_", separator="_"), "Qwen Image"),
        (peft({"transformer_blocks.0.attn.add_q_proj": (1536, 1536)}), "Stable Diffusion 3"),
        (peft({"transformer_blocks.0.attn1.to_q": (3072, 3072)}), "CogVideoX"),
        (peft({"transformer_blocks.0.attn1.to_q": (2048, 2048)}), "LTX-Video"),
        (peft({"layers.0.attention.to_q": (3840, 3840)}), "Z-Image"),
        (peft({"encoder.0.x": (8, 8)}), "a model that diffbox does not know"),
    ],
)
def test_a_refused_file_is_told_what_it_seems_to_be_for(
    shelf: Shelf, shapes: Mapping[str, tuple[int, ...]], title: str
) -> None:
    # Where Wan or Qwen fit, the other one is asked.
    qwen = {"model": "qwen-image-edit-2511", "expert": "transformer"}
    options = qwen if title.startswith("Wan") else {}
    message = refused(shelf, shelf.put("a.safetensors", shapes), **options).message
    assert message.endswith(f"It seems to be for {title}")
