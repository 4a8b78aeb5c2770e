"""Demo weights on disk: made on first use, sealed, made anew when damaged or of an older recipe.

Each demo family says what its files are; here is how they are written and how DiffSynth's loader
comes to know them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from core.pipelines.demo_weights import Array
from core.pipelines.stock import MODEL_CONFIGS, convert_keys_dict_to_single_str

Shapes = Mapping[str, tuple[int, ...]]

_SEAL: Final = "diffbox-demo"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoModel:
    """What DiffSynth's loader has to know about files with these tensors.

    `model_class` and `converter` are dotted names; `settings` go to the class.
    """

    shapes: Shapes
    name: str
    model_class: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    converter: str = ""


def ensure(
    folder: Path,
    recipe: str,
    weights: Mapping[str, Callable[[], dict[str, Array]]],
    texts: Mapping[str, str],
) -> None:
    """Make the files that are missing or damaged. Safe with several workers at once.

    Args:
        folder: where they lie.
        recipe: part of the seal; another one makes all weights anew.
        weights: what makes the tensors of each safetensors file, by path below the folder.
        texts: the other files' contents, by path.
    """
    for name, make in weights.items():
        path = folder / name
        if not _is_whole(path, recipe):
            _write(path, _sealed(make(), recipe))
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _write(path, text.encode())


def register(models: Iterable[DemoModel]) -> None:
    """Tell DiffSynth's loader how to recognise the files. Doing it twice is harmless."""
    for model in models:
        row: dict[str, Any] = {
            "model_hash": _key_hash(model.shapes),
            "model_name": model.name,
            "model_class": model.model_class,
            "extra_kwargs": dict(model.settings),
        }
        if model.converter:
            row["state_dict_converter"] = model.converter
        if all(known["model_hash"] != row["model_hash"] for known in MODEL_CONFIGS):
            MODEL_CONFIGS.append(row)


def shapes_of(model: torch.nn.Module) -> Shapes:
    """The shape of every tensor by its name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _key_hash(shapes: Shapes) -> str:
    """As DiffSynth's hash_model_file: MD5 over names and shapes."""
    text = convert_keys_dict_to_single_str({name: list(shape) for name, shape in shapes.items()})
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _sealed(weights: dict[str, Array], recipe: str) -> bytes:
    # One metadata key only: safetensors writes several in random order.
    return save(weights, metadata={_SEAL: _seal(weights, recipe)})


def _seal(weights: Mapping[str, Array], recipe: str) -> str:
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


def _is_whole(path: Path, recipe: str) -> bool:
    """Whether the file holds exactly what its seal says, by this recipe."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 1_000_000)))
        return bool(header["__metadata__"][_SEAL] == _seal(load_file(path), recipe))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return False


def _write(path: Path, content: bytes) -> None:
    """Beside, then renamed: another worker sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}-", delete=False
    ) as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(file.name).replace(path)
