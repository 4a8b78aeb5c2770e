"""LoRA files for tests: headers as they are about, with or without numbers in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.config import CoreConfig
from core.lora import LoraShelf

Shapes = Mapping[str, tuple[int, ...]]

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
