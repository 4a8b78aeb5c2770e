"""From a catalog row to a WanVideoPipeline: which files, where they are kept, and what went wrong.

    locate ──> check headers ──> VRAM policy ──> from_pretrained, one file set at a time

Nothing is ever downloaded here. High stands before low: DiffSynth takes the first as `dit` and the
second as `dit2`, and could not tell them apart.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from core import weights
from core.catalog import ModelRef, WeightFile, locate
from core.errors import ModelMissing, OutOfMemory
from core.pipelines import demo_wan, imports
from core.pipelines.device import dtype_for, host_memory
from core.pipelines.stock import ModelConfig, WanVideoPipeline, check_hooks
from core.protocol import Device, Stage
from core.run import Run

log = logging.getLogger(__name__)

_GIB: Final = 1024**3
_WORKING_GIB: Final = 14
"""Kept free on the GPU for activations when everything else stays on it."""
_HOST_SPARE_GIB: Final = 8
_VRAM_SPARE_GIB: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class VramPolicy:
    """Where weights wait while they are not needed; `vram_limit_gib` is for the offloading ones."""

    name: Literal["resident", "cpu_offload", "disk_offload"]
    vram_limit_gib: float | None = None

    def fields(self, dtype: torch.dtype) -> dict[str, Any]:
        """For DiffSynth's ModelConfig; VRAM management is on once both offloads are set."""
        if self.name == "resident":
            return {}
        waiting: dict[str, Any] = {"offload_dtype": dtype, "offload_device": "cpu"}
        if self.name == "disk_offload":
            waiting = {"offload_dtype": "disk", "offload_device": "disk"}
        return {
            **waiting,
            "onload_dtype": dtype,
            "onload_device": "cpu",
            "preparing_dtype": dtype,
            "preparing_device": "cuda",
            "computation_dtype": dtype,
            "computation_device": "cuda",
        }


def vram_policy(device: Device, *, weights_bytes: int, host_free_bytes: int) -> VramPolicy:
    """Keep all on the GPU if it fits, else wait in host memory, else on disk.

    Args:
        device: what computes.
        weights_bytes: all weights in the dtype they are kept in.
        host_free_bytes: memory of the machine that is free now.
    """
    total = device.memory_total_bytes
    if device.kind == "cpu" or total >= weights_bytes + _WORKING_GIB * _GIB:
        return VramPolicy(name="resident")
    limit = max(1.0, total / _GIB - _VRAM_SPARE_GIB)
    if host_free_bytes >= weights_bytes + _HOST_SPARE_GIB * _GIB:
        return VramPolicy(name="cpu_offload", vram_limit_gib=limit)
    return VramPolicy(name="disk_offload", vram_limit_gib=limit)


def load_wan(row: ModelRef, run: Run, *, models_dir: Path, device: Device) -> Any:
    """A WanVideoPipeline with the row's weights, on the device.

    Raises:
        ModelMissing: files are not here, or damaged; the message names them.
        OutOfMemory: they do not fit.
        JobCancelled: between two files.
    """
    check_hooks()
    files = [file for file in row.files if file.role != "tokenizer"]
    run.enter(Stage.LOADING, 2 * len(files))
    imports.warm()
    if row.demo:
        demo_wan.ensure(models_dir, row.id)
        demo_wan.register()
    if error := weights.missing(row, models_dir):
        raise error
    dtype = dtype_for(device)
    paths = {file: locate(file, models_dir) for file in files}
    parameters = checked(paths, run)
    policy = vram_policy(
        device, weights_bytes=parameters * dtype.itemsize, host_free_bytes=host_memory()[1]
    )
    log.info("loading %s as %s, %s", row.id, dtype, policy)
    fields = policy.fields(dtype)
    models = [
        LocalModel.of(paths[file], fields, step_of(run, len(files) + index))
        for index, file in enumerate(files)
    ]
    folder = _tokenizer_folder(row, models_dir)
    with printed_to_log(), out_of_memory("loading " + row.title), unknown_files(row.title):
        pipe = WanVideoPipeline.from_pretrained(
            torch_dtype=dtype,
            device=device.kind,
            model_configs=models,
            tokenizer_config=LocalModel.of([folder], {}, step_of(run, 2 * len(files))),
            redirect_common_files=False,
            vram_limit=policy.vram_limit_gib,
        )
    _check_roles(pipe, row)
    return pipe


def checked(paths: dict[WeightFile, tuple[Path, ...]], run: Run) -> int:
    """Parameters in all files; raises for the first one that is not whole."""
    parameters = 0
    for done, shards in enumerate(paths.values(), start=1):
        parameters += sum(weights.check_safetensors(path).parameters for path in shards)
        run.step(done)
    return parameters


def _check_roles(pipe: Any, row: ModelRef) -> None:
    """Each file was recognised as what the catalog says it is."""
    found = {
        "high": pipe.dit,
        "low": pipe.dit2,
        "text_encoder": pipe.text_encoder,
        "vae": pipe.vae,
        "image_encoder": pipe.image_encoder,
        "motion_controller": pipe.motion_controller,
        "tokenizer": pipe.tokenizer,
    }
    absent = [file for file in row.files if found[file.role] is None]
    if absent:
        names = "; ".join(f"{file.repo}: {file.pattern} ({file.role})" for file in absent)
        raise ModelMissing(f"these files of {row.title} hold something else: {names}")


@contextlib.contextmanager
def unknown_files(title: str) -> Iterator[None]:
    """Turn what DiffSynth says about a file it does not know into ModelMissing."""
    try:
        yield
    except ValueError as error:
        if "Cannot detect the model type" not in str(error):
            raise
        raise ModelMissing(f"a file of {title} holds no known model. {error}") from error


def _tokenizer_folder(row: ModelRef, models_dir: Path) -> Path:
    file = next(file for file in row.files if file.role == "tokenizer")
    return locate(file, models_dir)[0].parent


def step_of(run: Run, done: int) -> Callable[[], None]:
    """What tells that `done` steps are finished, when DiffSynth comes to a file."""
    return lambda: run.step(done)


class LocalModel(ModelConfig):  # type: ignore[misc]  # diffsynth is untyped
    """Files that are here: what DiffSynth calls before each file downloads nothing, ever."""

    before: Callable[[], None]

    @classmethod
    def of(
        cls, paths: Sequence[Path], fields: dict[str, Any], before: Callable[[], None]
    ) -> LocalModel:
        """As DiffSynth wants it: one path, or the list of shards."""
        names = [str(path) for path in paths]
        model = cls(path=names[0] if len(names) == 1 else names, **fields)
        model.before = before
        return model

    def download_if_necessary(self) -> None:
        """Tell progress, and stop here if the job was cancelled."""
        self.before()


@contextlib.contextmanager
def out_of_memory(doing: str) -> Iterator[None]:
    """Turn what torch raises when memory ends into OutOfMemory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        _empty_caches()
        raise OutOfMemory(
            f"the GPU ran out of memory while {doing}: use a smaller size, fewer frames or tiled "
            "VAE, or a larger GPU"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(
            f"the machine ran out of memory while {doing}: use a smaller size or fewer frames"
        ) from error


def _empty_caches() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def printed_to_log() -> Iterator[None]:
    """DiffSynth prints; what it says goes to the log, line by line."""
    with contextlib.redirect_stdout(_LogLines()):
        yield


class _LogLines(io.TextIOBase):
    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.debug("diffsynth: %s", line.rstrip())
        return len(text)
