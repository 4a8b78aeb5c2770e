"""Placement: where the weights of a pipeline are kept while they are not needed.

    full      all on the GPU                          fastest; no copy in a job
    offload   in host memory, copied layer by layer   the same picture; slower by the copies
    fp8       as offload, in 8 bits, but not the VAE  half the memory; rounding changes the picture
    disk      in their files                          works anywhere; each step reads them again

"auto" takes the first of them that fits, but fp8 only where host memory is too small for bfloat16:
a setting that nobody chose must not change what is made. For the same reason a pipeline is placed
as if it were alone, whatever else is warm; what has no room beside the others waits until they go.

What it comes to, weights in bfloat16 (GiB; the pair's files: 2 x 26.6, T5 10.6, VAE 0.2):

                    weights   24 GB card   48 GB card   80 GB card   141 GB card
    Wan 2.2 A14B         64   offload      offload      full         full
    Qwen Image Edit      54   offload      offload      full         full

with at least 72 and 62 GiB of free host memory; with half of that fp8, with less disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from core import catalog
from core.catalog import ModelRef, Role, locate
from core.config import CoreConfig, VramSetting
from core.errors import ConfigError
from core.pipelines.device import dtype_for, free_memory, host_memory, own_memory
from core.protocol import Device
from core.weights import check_safetensors
from core.workflows.base import PipelineSpec

PlacementName = Literal["full", "offload", "fp8", "disk"]

GIB: Final = 1024**3
WORKING_GIB: Final = 14
"""Kept free on the GPU for activations: 81 frames of 1280 x 720 and their decoding."""
HOST_SPARE_GIB: Final = 8
"""Kept free in host memory: pinned copies, the encoder, everybody else on the machine."""
VRAM_SPARE_GIB: Final = 2
"""Kept free on the GPU by what offloads: it fills the rest with layers."""
CPU_SPARE_GIB: Final = 2
"""For the activations of small models on a processor."""

ROUNDED: Final[frozenset[Role]] = frozenset({"high", "low", "transformer", "text_encoder"})
"""What fp8 keeps in 8 bits: nearly all of the weights, and not those that make the pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How one pipeline is kept; `vram_limit_gib` is for those that offload."""

    name: PlacementName
    vram_limit_gib: float | None = None

    def fields(self, dtype: torch.dtype, role: Role = "transformer") -> dict[str, Any]:
        """For DiffSynth's ModelConfig; VRAM management is on once both offloads are set.

        From the disk, weights go straight to the GPU: host memory may be smaller than one model.
        """
        if self.name == "full":
            return {}
        kept = torch.float8_e4m3fn if self.name == "fp8" and role in ROUNDED else dtype
        waiting: Any = ("disk", "disk") if self.name == "disk" else (kept, "cpu")
        return {
            "offload_dtype": waiting[0],
            "offload_device": waiting[1],
            "onload_dtype": waiting[0],
            "onload_device": waiting[1],
            "preparing_dtype": kept,
            "preparing_device": "cuda",
            "computation_dtype": dtype,
            "computation_device": "cuda",
        }


def choose(
    setting: VramSetting, device: Device, *, weights_bytes: int, host_free_bytes: int
) -> Placement:
    """The placement for a pipeline that has the device for itself.

    Args:
        setting: DIFFBOX_VRAM_POLICY.
        device: what computes.
        weights_bytes: all weights in the dtype that they compute in.
        host_free_bytes: memory of the machine that it can have; see `host_memory_alone`.

    Raises:
        ConfigError: the setting needs a GPU, and there is none.
    """
    if device.kind == "cpu":
        if setting not in ("auto", "full"):
            raise ConfigError(
                f"DIFFBOX_VRAM_POLICY={setting} needs a GPU, and this machine has none: "
                "use auto or full"
            )
        return Placement(name="full")
    name = (
        setting
        if setting != "auto"
        else _first_that_fits(device.memory_total_bytes, weights_bytes, host_free_bytes)
    )
    if name == "full":
        return Placement(name="full")
    limit = max(1.0, device.memory_total_bytes / GIB - VRAM_SPARE_GIB)
    return Placement(name=name, vram_limit_gib=limit)


def _first_that_fits(vram_bytes: int, weights_bytes: int, host_free_bytes: int) -> PlacementName:
    if vram_bytes >= weights_bytes + WORKING_GIB * GIB:
        return "full"
    if host_free_bytes >= weights_bytes + HOST_SPARE_GIB * GIB:
        return "offload"
    if host_free_bytes >= weights_bytes // 2 + HOST_SPARE_GIB * GIB:
        return "fp8"
    return "disk"


def host_memory_alone() -> int:
    """Bytes of host memory that would be free if no pipeline were loaded."""
    return host_memory()[1] + own_memory()


def fits(spec: PipelineSpec, *, config: CoreConfig, device: Device) -> bool:
    """Whether the pipeline for a spec has room beside what is in memory now."""
    row = catalog.model(spec.model)
    weights_bytes = stored_parameters(row, config) * dtype_for(device).itemsize
    host_free = host_memory()[1]
    if device.kind == "cpu":
        return host_free >= weights_bytes + CPU_SPARE_GIB * GIB
    placed = choose(
        config.vram_policy,
        device,
        weights_bytes=weights_bytes,
        host_free_bytes=host_memory_alone(),
    )
    vram_free = free_memory(device)
    if placed.name == "full":
        return vram_free >= weights_bytes + WORKING_GIB * GIB
    waiting = {"offload": weights_bytes, "fp8": weights_bytes // 2, "disk": 0}[placed.name]
    return vram_free >= WORKING_GIB * GIB and host_free >= waiting + HOST_SPARE_GIB * GIB


def stored_parameters(row: ModelRef, config: CoreConfig) -> int:
    """Parameters in the model's files, by their headers; 0 for what is not there (yet)."""
    return sum(
        check_safetensors(path).parameters
        for file in row.files
        if file.pattern.endswith(".safetensors")
        for path in locate(file, config.models_dir)
    )
