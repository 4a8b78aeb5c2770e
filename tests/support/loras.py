"""LoRA files for tests: headers as they are about, with or without numbers in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.config import CoreConfig
from core.errors import DiffboxError
from core.lora import Expert, LoraPart, LoraShelf, LoraUse

Shapes = Mapping[str, tuple[int, ...]]

A14B = "wan2.2-i2v-a14b"
QWEN = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.to_out.0": (3072, 3072),
    "transformer_blocks.0.attn.add_k_proj": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072),
    "transformer_blocks.0.txt_mod.1": (18432, 3072),
}
"""(out, in) of some linear modules of Qwen Image."""
WAN_BRANCHES = (
    *(f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"),
    "ffn.0",
    "ffn.2",
)


def folders(root: Path) -> CoreConfig:
    """Data, models and outputs below one folder."""
    return CoreConfig(
        data_dir=root / "data", models_dir=root / "models", outputs_dir=root / "outputs"
    )


def no_loras(folder: Path) -> LoraShelf:
    """The shelf of a folder without any file."""
    return LoraShelf(folders(folder))


def write_header(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Path:
    """A whole safetensors file of float8 zeros: one byte a number, and sparse on disk."""
    rows: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        rows[name] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return path


def wan_linears(width: int, ffn: int, blocks: int) -> dict[str, tuple[int, int]]:
    """(out, in) of the linear modules in a Wan model's blocks."""
    return {
        f"blocks.{block}.{branch}": {"ffn.0": (ffn, width), "ffn.2": (width, ffn)}.get(
            branch, (width, width)
        )
        for block in range(blocks)
        for branch in WAN_BRANCHES
    }


def peft(
    linears: Shapes, rank: int = 4, prefix: str = "", adapter: str = ""
) -> dict[str, tuple[int, ...]]:
    """Tensors of a PEFT file for these modules."""
    found: dict[str, tuple[int, ...]] = {}
    for module, (outputs, inputs) in linears.items():
        found[f"{prefix}{module}.lora_A{adapter}.weight"] = (rank, inputs)
        found[f"{prefix}{module}.lora_B{adapter}.weight"] = (outputs, rank)
    return found


def kohya(
    linears: Shapes, rank: int = 4, prefix: str = "", separator: str = "."
) -> dict[str, tuple[int, ...]]:
    """Tensors of a file with down, up and alpha for these modules."""
    found: dict[str, tuple[int, ...]] = {}
    for module, (outputs, inputs) in linears.items():
        name = prefix + module.replace(".", separator)
        found[f"{name}.lora_down.weight"] = (rank, inputs)
        found[f"{name}.lora_up.weight"] = (outputs, rank)
        found[f"{name}.alpha"] = ()
    return found


def as_weights(linears: Shapes) -> dict[str, tuple[int, ...]]:
    """A base model's tensors with these linear modules."""
    return {f"{module}.weight": shape for module, shape in linears.items()}


def unet(context: int, names: Iterable[str] = ("to_k", "to_v")) -> dict[str, tuple[int, int]]:
    """(out, in) of cross attention in a Stable Diffusion UNet; `context` tells its version."""
    return {
        f"lora_unet_input_blocks_{block}_1_transformer_blocks_0_attn2_{name}": (640, context)
        for block in (4, 5, 7, 8)
        for name in names
    }


WAN = wan_linears(5120, 13824, 4)


class Shelf:
    """A folder with base models of a few blocks and with LoRA files."""

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self.shelf = LoraShelf(folders(root))
        for expert in ("high", "low"):
            self.base(f"Wan-AI/Wan2.2-I2V-A14B/{expert}_noise_model", WAN)
        self.base("Qwen/Qwen-Image-Edit-2511/transformer", QWEN)

    def base(self, folder: str, linears: Shapes) -> None:
        """A base model's file."""
        path = self.models / "base" / folder / "diffusion_pytorch_model.safetensors"
        write_header(path, {**as_weights(linears), "blocks.0.norm3.weight": (5120,)})

    def put(self, name: str, shapes: Shapes, **metadata: str) -> str:
        """A LoRA file; gives its name."""
        write_header(self.models / "lora" / name, shapes, metadata)
        return name

    def use(self, name: str, model: str = A14B, expert: Expert = "high") -> LoraUse:
        """The file on a model."""
        part = LoraPart(place="lora[0].high", expert=expert, name=name, strength=1.0)
        (use,) = self.shelf.uses(model, "i2v", [part])
        return use


def refused(shelf: Shelf, name: str, **options: Any) -> DiffboxError:
    """Why a LoRA does not go on."""
    with pytest.raises(DiffboxError) as caught:
        shelf.use(name, **options)
    assert caught.value.problems[0].field == "lora"
    return caught.value
