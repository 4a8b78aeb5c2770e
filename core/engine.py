"""Engine: owns the device, keeps loaded pipelines warm, runs one job at a time.

    run(job) = read params → Run → workflow.run → completed | failed | cancelled

It never raises: whatever happens becomes the job's one terminal event. One of the two places
with a broad `except` (the other is the API).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from core import catalog
from core.config import CoreConfig
from core.controlnets import ControlnetShelf
from core.errors import DiffboxError, JobCancelled
from core.fetch import Inputs
from core.lora import LoraShelf
from core.progress import ProgressMeter, tail_share
from core.protocol import (
    Cancelled,
    Completed,
    Device,
    EngineState,
    Event,
    Failed,
    Job,
    Plan,
    TerminalEvent,
    failed,
)
from core.run import Run
from core.storage import LocalStorage
from core.warm import LoadedPipeline, WarmPipelines
from core.workflows import workflow
from core.workflows.base import PipelineSpec

log = logging.getLogger(__name__)

FATAL_CODES: Final = frozenset({"internal", "out_of_memory"})
"""After these all pipelines are dropped: what they hold may be broken or fill the device."""


class Engine:
    """Runs jobs on one device.

    Args:
        load: makes the pipeline for a spec; tells progress on the run it is loaded for.
        config: the three folders.
        device: what it runs on, for the workers' list.
        versions: what is installed, for the same.
        fits: whether the pipeline for a spec has room beside those that are loaded; without it
            there is one at a time.
    """

    def __init__(
        self,
        *,
        load: Callable[[PipelineSpec, Run], LoadedPipeline],
        config: CoreConfig,
        device: Device,
        versions: dict[str, str],
        fits: Callable[[PipelineSpec], bool] = lambda _: False,
    ) -> None:
        self._warm = WarmPipelines(load, fits)
        self._config = config
        self._device = device
        self._versions = versions
        self._storage = LocalStorage(config.outputs_dir)
        self._loras = LoraShelf(config)
        self._controlnets = ControlnetShelf(config)
        self._tail_shares: dict[str, float] = {}

    def state(self) -> EngineState:
        """What this engine can do now."""
        ready = catalog.ready_ids(self._config.models_dir)
        return EngineState(models=ready, device=self._device, versions=self._versions)

    def run(
        self,
        job: Job,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        steered: Callable[[], Plan | None] = lambda: None,
    ) -> TerminalEvent:
        """Do the job; `emit` takes its progress, the terminal event is returned.

        Args:
            job: what to do.
            emit: called from this thread.
            cancelled: asked often; once True the job ends as `cancelled`.
            steered: the newest plan that came after the job, None as long as there is none;
                asked before each clip.
        """
        end = self._attempt(job, emit, cancelled, steered)
        # Only here: while an exception is handled, its frames hold the pipeline and its tensors.
        if isinstance(end, Failed):
            self._warm.recover(drop=end.code in FATAL_CODES)
        elif isinstance(end, Cancelled):
            self._warm.recover(drop=False)
        return end

    def close(self) -> None:
        """Drop all pipelines."""
        self._warm.close()

    def _attempt(
        self,
        job: Job,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        steered: Callable[[], Plan | None],
    ) -> TerminalEvent:
        started = time.monotonic()
        meter = self._meter(job)
        try:
            run = self._new_run(job, emit, cancelled, steered, meter)
            recipe = workflow(job.workflow)
            params = recipe.read(job.params)
            self._storage.sweep(job)
            recipe.run(params, run)
        except JobCancelled:
            return Cancelled(job_id=job.id)
        except DiffboxError as error:
            log.warning("job %s failed: %s", job.id, error.message)
            return failed(job.id, error)
        except Exception as error:
            log.exception("job %s failed", job.id)
            return failed(job.id, error)
        used = self._warm.measured() if run.provenance else {}
        metrics = {**self._metrics(job, meter, time.monotonic() - started), **used, **run.metrics}
        return Completed(job_id=job.id, artifacts=tuple(run.artifacts), metrics=metrics)

    def _new_run(
        self,
        job: Job,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        steered: Callable[[], Plan | None],
        meter: ProgressMeter,
    ) -> Run:
        return Run(
            job,
            emit=emit,
            cancelled=cancelled,
            steered=steered,
            load=self._warm.get,
            inputs=Inputs(self._config),
            storage=self._storage,
            meter=meter,
            loras=self._loras,
            controlnets=self._controlnets,
        )

    def _meter(self, job: Job) -> ProgressMeter:
        share = self._tail_shares.get(job.workflow)
        return ProgressMeter() if share is None else ProgressMeter(tail_share=share)

    def _metrics(self, job: Job, meter: ProgressMeter, total_s: float) -> dict[str, Any]:
        seconds = meter.finish()
        if (share := tail_share(seconds)) is not None:
            self._tail_shares[job.workflow] = share
        stages = {stage.value: round(spent, 3) for stage, spent in seconds.items()}
        return {"total_s": round(total_s, 3), "stages_s": stages, "seed": job.params.get("seed")}
