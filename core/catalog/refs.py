"""What the catalog's rows are: models, LoRAs, controlnets, presets, and the files of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Family = Literal["wan_video", "qwen_image"]
Role = Literal[
    "high",
    "low",
    "transformer",
    "text_encoder",
    "vae",
    "image_encoder",
    "motion_controller",
    "tokenizer",
    "processor",
    "controlnet",
    "lora",
]


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
    `loras` are ids of LoraRefs, by the workflow that puts them on by itself.
    `settings` are what the family's adapter has to know about it.
    """

    id: str
    title: str
    family: Family
    workflows: tuple[str, ...]
    files: tuple[WeightFile, ...]
    capabilities: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    loras: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    demo: bool = False
    licence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraRef:
    """A LoRA that the catalog knows: one file an expert for Wan, one file for Qwen.

    `models` are ids of the models that it was made for.
    """

    id: str
    title: str
    family: Family
    models: tuple[str, ...]
    high: WeightFile | None = None
    low: WeightFile | None = None
    file: WeightFile | None = None
    demo: bool = False
    licence: str = ""

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """All its files."""
        return tuple(file for file in (self.high, self.low, self.file) if file)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlnetRef:
    """A controlnet that is put beside a model; `kind` says what it is steered by."""

    id: str
    title: str
    family: Family
    kind: Literal["canny", "depth", "inpaint"]
    models: tuple[str, ...]
    file: WeightFile
    demo: bool = False
    licence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Params that belong together. A parameter that is sent as well wins over the preset's."""

    id: str
    title: str
    workflow: str
    models: tuple[str, ...]
    params: Mapping[str, Any]
