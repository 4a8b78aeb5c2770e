"""The weights as data: what models, LoRAs and controlnets there are, and where their files lie.

Below `DIFFBOX_MODELS_DIR` a repository's files keep their own names:
`base/<owner>/<repository>/<path in the repository>`; `<owner>/<repository>/…` is taken as well,
which is what `hf download --local-dir` of the whole repository gives, and for LoRAs
`lora/<owner>/<repository>/…`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from core.catalog.loras import LORAS, PRESETS
from core.catalog.qwen import CONTROLNETS, QWEN_MODELS
from core.catalog.refs import (
    ControlnetRef,
    Family,
    LoraRef,
    ModelRef,
    Preset,
    Role,
    WeightFile,
)
from core.catalog.wan import WAN_MODELS
from core.errors import InvalidParams, Problem

__all__ = [
    "AUTO",
    "CONTROLNETS",
    "LORAS",
    "MODELS",
    "PRESETS",
    "ControlnetRef",
    "Family",
    "LoraRef",
    "ModelRef",
    "Preset",
    "Role",
    "WeightFile",
    "controlnet",
    "find_lora",
    "is_demo",
    "is_ready",
    "locate",
    "missing_files",
    "model",
    "models_for",
    "ready_ids",
    "unknown_model",
]

AUTO: Final = "auto"
"""The model parameter's value for "the best one that is here"."""

MODELS: Final[tuple[ModelRef, ...]] = (*WAN_MODELS, *QWEN_MODELS)
"""Order is preference: the first one whose weights are here is what AUTO means."""


def models_for(workflow_id: str) -> tuple[ModelRef, ...]:
    """The models that a workflow can run on, best first."""
    return tuple(model for model in MODELS if workflow_id in model.workflows)


def model(model_id: str) -> ModelRef:
    """The catalog's row.

    Raises:
        InvalidParams: no row has this id.
    """
    for row in MODELS:
        if row.id == model_id:
            return row
    raise unknown_model(model_id, MODELS)


def is_demo(model_id: str) -> bool:
    """Whether it is a demo model, whose files are made on first use."""
    return any(row.id == model_id and row.demo for row in MODELS)


def controlnet(kind: str, model_id: str) -> ControlnetRef | None:
    """The controlnet of a kind that is made for a model."""
    rows = (row for row in CONTROLNETS if row.kind == kind and model_id in row.models)
    return next(rows, None)


def unknown_model(model_id: object, rows: tuple[ModelRef, ...]) -> InvalidParams:
    """The error for a model id that is not one of `rows`."""
    message = f"model {model_id!r} is not one of {', '.join((AUTO, *(row.id for row in rows)))}"
    return InvalidParams(message, problems=(Problem(field="model", message=message),))


def find_lora(lora_id: str) -> LoraRef | None:
    """The catalog's LoRA with this id, None when there is none."""
    return next((ref for ref in LORAS if ref.id == lora_id), None)


def locate(file: WeightFile, models_dir: Path) -> tuple[Path, ...]:
    """The files of a file set, sorted by name; empty when none or not all shards are there."""
    folders = ("base", "lora", "") if file.role == "lora" else ("base", "")
    for root in (models_dir / folder / file.repo for folder in folders):
        paths = tuple(sorted(p for p in root.glob(file.pattern) if p.is_file()))
        if paths and not _missing_shards(paths):
            return paths
    return ()


def missing_files(row: ModelRef, models_dir: Path) -> tuple[WeightFile, ...]:
    """The file sets that are not on disk, in the catalog's order."""
    return tuple(file for file in row.files if not locate(file, models_dir))


def is_ready(row: ModelRef, models_dir: Path) -> bool:
    """Whether a job can run on it now. Demo weights are made on first use, so always."""
    return row.demo or not missing_files(row, models_dir)


def ready_ids(models_dir: Path) -> tuple[str, ...]:
    """Ids of the models that a job can run on now, best first."""
    return tuple(row.id for row in MODELS if is_ready(row, models_dir))


_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")


def _missing_shards(paths: tuple[Path, ...]) -> bool:
    found = [match for path in paths if (match := _SHARD.search(path.name))]
    return bool(found) and len(found) != int(found[0].group(2))
