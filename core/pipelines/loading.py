"""From a catalog row to a WanVideoPipeline: which files, where they are kept, and what went wrong.

    locate ──> check headers ──> placement ──> from_pretrained: read and build, file by file

Nothing is ever downloaded here. High stands before low: DiffSynth takes the first as `dit` and the
second as `dit2`, and could not tell them apart.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from core import weights
from core.catalog import ModelRef, Role, WeightFile, locate
from core.config import CoreConfig
from core.errors import ModelMissing, OutOfMemory
from core.pipelines import demo_wan, imports
from core.pipelines.device import dtype_for
from core.pipelines.placement import Placement, choose, host_memory_alone
from core.pipelines.reading import Target, Tensors, read_tensors
from core.pipelines.stock import ModelConfig, WanVideoPipeline, check_hooks
from core.protocol import Device, Stage
from core.run import Run

log = logging.getLogger(__name__)

FOLDERS: Final[frozenset[Role]] = frozenset({"tokenizer", "processor"})
"""Roles whose files are read as one folder, by transformers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """DiffSynth's pipeline, and how it and whatever is put beside it are kept."""

    pipe: Any
    placement: Placement


def load_wan(row: ModelRef, run: Run, *, config: CoreConfig, device: Device) -> Loaded:
    """A WanVideoPipeline with the row's weights, on the device.

    Raises:
        ModelMissing: files are not here, or damaged; the message names them.
        OutOfMemory: they do not fit.
        JobCancelled: between two files.
    """
    check_hooks()
    imports.warm()
    if row.demo:
        demo_wan.ensure(config.models_dir, row.id)
        demo_wan.register()
    given = prepared(row, run, config=config, device=device)
    with printed_to_log(), out_of_memory("loading " + row.title), unknown_files(row.title):
        pipe = WanVideoPipeline.from_pretrained(**given.arguments, redirect_common_files=False)
    check_roles(
        row,
        {
            "high": pipe.dit,
            "low": pipe.dit2,
            "text_encoder": pipe.text_encoder,
            "vae": pipe.vae,
            "image_encoder": pipe.image_encoder,
            "motion_controller": pipe.motion_controller,
            "tokenizer": pipe.tokenizer,
        },
    )
    return Loaded(pipe=pipe, placement=given.placement)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What `from_pretrained` of a family takes, and the placement that it follows from."""

    arguments: dict[str, Any]
    placement: Placement


def prepared(row: ModelRef, run: Run, *, config: CoreConfig, device: Device) -> Prepared:
    """Find and check the files of a row, and decide where they are kept; the run is told.

    Raises:
        ModelMissing: files are not here, or damaged; the message names them.
        JobCancelled: between two files.
    """
    models_dir = config.models_dir
    files = [file for file in row.files if file.role not in FOLDERS]
    run.enter(Stage.LOADING, 2 * len(files))
    if error := weights.missing(row, models_dir):
        raise error
    dtype = dtype_for(device)
    paths = {file: locate(file, models_dir) for file in files}
    placement = choose(
        config.vram_policy,
        device,
        weights_bytes=_checked(paths, run) * dtype.itemsize,
        host_free_bytes=host_memory_alone(),
    )
    log.info("loading %s as %s, %s", row.id, dtype, placement)
    folders = {
        f"{file.role}_config": LocalModel.of(
            [locate(file, models_dir)[0].parent], {}, step_of(run, 2 * len(files))
        )
        for file in row.files
        if file.role in FOLDERS
    }
    arguments = {
        "torch_dtype": dtype,
        "device": device.kind,
        "model_configs": [
            LocalModel.of(
                paths[file],
                placement.fields(dtype, file.role),
                step_of(run, len(files) + index),
                target=target_of(placement, device, dtype, file.role),
                check=run.check,
            )
            for index, file in enumerate(files)
        ],
        "vram_limit": placement.vram_limit_gib,
        **folders,
    }
    return Prepared(arguments=arguments, placement=placement)


def _checked(paths: dict[WeightFile, tuple[Path, ...]], run: Run) -> int:
    """Parameters in all files; raises for the first one that is not whole."""
    parameters = 0
    for done, shards in enumerate(paths.values(), start=1):
        parameters += sum(weights.check_safetensors(path).parameters for path in shards)
        run.step(done)
    return parameters


def check_roles(row: ModelRef, found: Mapping[Role, Any]) -> None:
    """Each file was recognised as what the catalog says it is.

    Raises:
        ModelMissing: one was not.
    """
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


def nothing() -> None:
    """There is nothing to tell or to ask."""


def step_of(run: Run, done: int) -> Callable[[], None]:
    """What tells that `done` steps are finished, when DiffSynth comes to a file."""
    return lambda: run.step(done)


def target_of(
    placement: Placement, device: Device, dtype: torch.dtype, role: Role = "transformer"
) -> Target | None:
    """Where files are read to, as DiffSynth would; None for those that stay on the disk."""
    fields = placement.fields(dtype, role)
    if placement.name == "disk":
        return None
    return Target(
        device=fields.get("offload_device", device.kind), dtype=fields.get("offload_dtype", dtype)
    )


class LocalModel(ModelConfig):  # type: ignore[misc]  # diffsynth is untyped
    """Files that are here: instead of downloading them, DiffSynth has them read."""

    before: Callable[[], None]
    read: Callable[[], Tensors] | None

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        fields: dict[str, Any],
        before: Callable[[], None],
        *,
        target: Target | None = None,
        check: Callable[[], None] = nothing,
    ) -> LocalModel:
        """As DiffSynth wants it: one path, or the list of shards.

        Args:
            paths: the files.
            fields: how they are kept.
            before: called when DiffSynth comes to the files.
            target: where they are read to; None leaves that to DiffSynth.
            check: called between tensors; what it raises ends the loading.
        """
        names = [str(path) for path in paths]
        model = cls(path=names[0] if len(names) == 1 else names, **fields)
        model.before = before
        model.read = partial(read_tensors, paths, target, check) if target else None
        return model

    def download_if_necessary(self) -> None:
        """Tell progress, stop here if the job was cancelled, and read the weights."""
        self.before()
        if self.read is not None:
            self.state_dict = self.read()


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
