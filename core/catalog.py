"""The weights as data: one ModelRef a model, one WeightFile a file set, and where they lie.

Below `DIFFBOX_MODELS_DIR` a repository's files keep their own names:
`base/<owner>/<repository>/<path in the repository>`; `<owner>/<repository>/…` is taken as well,
which is what `hf download --local-dir` of the whole repository gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from core.errors import InvalidParams, Problem

Family = Literal["wan_video"]
Role = Literal["high", "low", "text_encoder", "vae", "tokenizer"]

AUTO: Final = "auto"
"""The model parameter's value for "the best one that is here"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """A file set of one repository. `pattern` is a glob; shards are one file set."""

    role: Role
    repo: str
    pattern: str
    revision: str = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """A model that workflows can run on.

    `capabilities` name what only some models can do; a parameter may need one.
    `defaults` replace the workflow's own where this model works best with others.
    """

    id: str
    title: str
    family: Family
    workflows: tuple[str, ...]
    files: tuple[WeightFile, ...]
    capabilities: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    demo: bool = False
    licence: str = ""


_WAN22 = "Wan-AI/Wan2.2-I2V-A14B"
_WAN_SAFETENSORS = "DiffSynth-Studio/Wan-Series-Converted-Safetensors"
_DEMO = "diffbox/wan-demo"

# Order is preference: the first one whose weights are here is what AUTO means.
# high stands before low because DiffSynth takes the first as `dit` and the second as `dit2`,
# and both have the same key hash: swapped, they load without an error and make bad video.
MODELS: Final[tuple[ModelRef, ...]] = (
    ModelRef(
        id="wan2.2-i2v-a14b",
        title="Wan 2.2 I2V A14B",
        family="wan_video",
        workflows=("i2v",),
        files=(
            WeightFile(
                role="high",
                repo=_WAN22,
                pattern="high_noise_model/diffusion_pytorch_model*.safetensors",
            ),
            WeightFile(
                role="low",
                repo=_WAN22,
                pattern="low_noise_model/diffusion_pytorch_model*.safetensors",
            ),
            WeightFile(
                role="text_encoder",
                repo=_WAN_SAFETENSORS,
                pattern="models_t5_umt5-xxl-enc-bf16.safetensors",
            ),
            WeightFile(role="vae", repo=_WAN_SAFETENSORS, pattern="Wan2.1_VAE.safetensors"),
            WeightFile(
                role="tokenizer", repo="Wan-AI/Wan2.1-T2V-1.3B", pattern="google/umt5-xxl/*"
            ),
        ),
        capabilities=frozenset({"end_image", "input_video", "two_experts"}),
        licence="Apache-2.0",
    ),
    ModelRef(
        id="wan-demo",
        title="Demo (random weights, CPU)",
        family="wan_video",
        workflows=("i2v",),
        files=(
            WeightFile(role="high", repo=_DEMO, pattern="high_noise_model.safetensors"),
            WeightFile(role="low", repo=_DEMO, pattern="low_noise_model.safetensors"),
            WeightFile(role="text_encoder", repo=_DEMO, pattern="text_encoder.safetensors"),
            WeightFile(role="vae", repo=_DEMO, pattern="vae.safetensors"),
            WeightFile(role="tokenizer", repo=_DEMO, pattern="tokenizer/*"),
        ),
        capabilities=frozenset({"end_image", "input_video", "two_experts"}),
        defaults=MappingProxyType(
            {
                "resolution": "256x256",
                "num_frames": 17,
                "num_inference_steps": 8,
                "cfg_scale": 1.0,
                "tiled": False,
            }
        ),
        demo=True,
        licence="Apache-2.0",
    ),
)


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


def unknown_model(model_id: object, rows: tuple[ModelRef, ...]) -> InvalidParams:
    """The error for a model id that is not one of `rows`."""
    message = f"model {model_id!r} is not one of {', '.join((AUTO, *(row.id for row in rows)))}"
    return InvalidParams(message, problems=(Problem(field="model", message=message),))


def locate(file: WeightFile, models_dir: Path) -> tuple[Path, ...]:
    """The files of a file set, sorted by name; empty when none or not all shards are there."""
    for root in (models_dir / "base" / file.repo, models_dir / file.repo):
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
