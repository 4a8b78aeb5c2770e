"""An Engine without torch, for DIFFBOX_ENGINE="tests.support.engine:build"."""

from __future__ import annotations

from core.config import CoreConfig, Env, core_fields
from core.engine import Engine
from core.errors import ModelMissing
from core.protocol import Device
from core.run import Run
from core.warm import LoadedPipeline
from core.workflows import register
from core.workflows.base import PipelineSpec

PATH = "tests.support.engine:build"
DEVICE = Device(kind="cpu", name="test", memory_total_bytes=1, memory_free_bytes=1)


def build() -> Engine:
    """Reads the folders and workflows from the environment, as the real one does."""
    config = CoreConfig(**core_fields(Env()))
    for path in config.workflows:
        register(path)
    return Engine(load=_no_pipeline, config=config, device=DEVICE, versions={"test": "1"})


def _no_pipeline(spec: PipelineSpec, run: Run) -> LoadedPipeline:
    raise ModelMissing(f"{spec.model} is not here")
