"""Controlnet files on this machine: found by kind, checked by their headers before loading.

A blockwise controlnet has one small block for each block of the base model and the same width, so
its header tells whether it goes onto a model. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core import catalog
from core.catalog import ControlnetRef, ModelRef
from core.config import CoreConfig
from core.errors import InvalidParams, ModelMissing, Problem
from core.weights import Fingerprints, check_safetensors, fingerprint_of

if TYPE_CHECKING:
    from PIL import Image

FIELD: Final = "controlnet"
_TOKEN: Final = 64
"""Numbers of an image token: 16 channels of 2 x 2 latents."""
_MASK: Final = 4
"""What the inpaint kind gets beside it: the mask's 2 x 2 latents."""
_BLOCK: Final = re.compile(r"(?:transformer_blocks|controlnet_blocks)\.(\d+)\.")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlnetUse:
    """A checked file, as a pipeline puts it beside its model."""

    id: str
    kind: str
    path: Path
    fingerprint: Mapping[str, Any]

    def provenance(self) -> dict[str, Any]:
        """For the metadata of outputs; holds no local path."""
        return {"id": self.id, "kind": self.kind, **self.fingerprint}


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlnetHint:
    """What a controlnet is told in one job.

    `image` is RGB of the result's size: edges, a depth map, or for the inpaint kind the picture
    with `mask`, L of the same size, white where it is made anew. `start` and `end` are shares of
    the steps, 0 to 1.
    """

    image: Image.Image
    mask: Image.Image | None
    scale: float
    start: float
    end: float


class ControlnetShelf:
    """The controlnet files of this machine.

    Args:
        config: where weights lie and fingerprints are kept.
    """

    def __init__(self, config: CoreConfig) -> None:
        self._models_dir = config.models_dir
        self._known = Fingerprints(config.data_dir)

    def use(self, kind: str, model: str) -> ControlnetUse:
        """The controlnet of a kind for a model whose weights are here.

        Raises:
            InvalidParams: the catalog has none for this model.
            ModelMissing: its file is not here, damaged, or something else than it should be.
        """
        row = catalog.model(model)
        ref = catalog.controlnet(kind, model)
        if ref is None:
            raise _error(InvalidParams, f"there is no controlnet {kind!r} for {row.title}")
        found = catalog.locate(ref.file, self._models_dir)
        if not found:
            raise _error(
                ModelMissing,
                f"the controlnet {ref.title} is not on this machine. Missing: {ref.file.repo}: "
                f"{ref.file.pattern}. Looked below {self._models_dir}/base/{ref.file.repo} and "
                f"{self._models_dir}/{ref.file.repo}. Put it there, or choose another controlnet",
            )
        path = found[0]
        try:
            header = check_safetensors(path)
        except ModelMissing as error:
            raise _error(ModelMissing, error.message) from None
        self._check(ref, row, path, header.shapes)
        fingerprint = fingerprint_of(path, ref.file.repo, self._known)
        return ControlnetUse(id=ref.id, kind=kind, path=path, fingerprint=fingerprint)

    def _check(self, ref: ControlnetRef, row: ModelRef, path: Path, found: Shapes) -> None:
        """Refuse what does not fit the base model, by name and shape."""
        base: dict[str, tuple[int, ...]] = {}
        for file in row.files:
            if file.role == "transformer":
                for shard in catalog.locate(file, self._models_dir):
                    base |= check_safetensors(shard).shapes
        if "img_in.weight" not in base:
            return  # the base itself is not here, which whoever loads it tells
        width = base["img_in.weight"][0]
        inputs = _TOKEN + (_MASK if ref.kind == "inpaint" else 0)
        wanted = (_blocks(base), (width, inputs))
        if (_blocks(found), found.get("img_in.weight")) == wanted:
            return
        raise _error(
            ModelMissing,
            f"{path} is not the controlnet {ref.title}: it holds {_seems(found)}, and {row.title} "
            f"needs {wanted[0]} blocks of width {width} with {inputs} inputs; put the file "
            f"{ref.file.pattern} of {ref.file.repo} there",
        )


def _blocks(shapes: Shapes) -> int:
    return len({match[1] for name in shapes if (match := _BLOCK.match(name))})


def _seems(shapes: Shapes) -> str:
    """What a file seems to be, in words."""
    entry = shapes.get("img_in.weight")
    if any(name.startswith("controlnet_blocks.") for name in shapes) and entry:
        return f"{_blocks(shapes)} blocks of width {entry[0]} with {entry[-1]} inputs"
    for words, pattern in _KINDS.items():
        if any(re.search(pattern, name) for name in shapes):
            return words
    return f"{len(shapes)} tensors such as {next(iter(shapes), 'none')!r}"


_KINDS: Final[Mapping[str, str]] = {
    "a LoRA": r"lora_(A|B|up|down)",
    "a controlnet for FLUX": r"(double|single)_blocks\.|single_transformer_blocks\.",
    "a controlnet for Stable Diffusion": r"(zero_convs|input_blocks|down_blocks)\.",
    "a controlnet for Wan": r"(vace_blocks|control_adapter)\b",
    "an in-context controlnet": r"controlnet_x_embedder\.",
    "a transformer": r"transformer_blocks\.",
}


def _error(cls: type[InvalidParams] | type[ModelMissing], message: str) -> Exception:
    return cls(message, problems=(Problem(field=FIELD, message=message),))
