"""Part (d) of bench_svi: what an svi job that was lost costs beyond one that was not disturbed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from benchmarks.table import print_table
from core.config import CoreConfig
from core.engine import Engine
from core.pipelines import build
from core.pipelines.device import cpu_threads, detect
from core.protocol import Cancelled, Clip, Completed, Event, Job, Progress, Stage
from tests.core.pipelines.svi_runs import Studio

LOST_AFTER: Final = (1, 4, 16)
ROUNDS: Final = 5


class Clock:
    """Takes a job's events, and notes when each clip was stored and when steps began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.stored: list[float] = []
        self.denoising: list[float] = []
        self._stage: Stage | None = None

    def __call__(self, event: Event) -> None:
        """The engine's `emit`."""
        now = time.perf_counter() - self.began
        if isinstance(event, Clip):
            self.stored.append(now)
        elif isinstance(event, Progress):
            if event.stage is Stage.DENOISING and self._stage is not Stage.DENOISING:
                self.denoising.append(now)
            self._stage = event.stage


def timed(
    engine: Engine, job: Job, cancelled: Callable[[Clock], bool] = lambda clock: False
) -> Clock:
    """Run a job; it may be stopped, but must not fail."""
    clock = Clock()
    end = engine.run(job, clock, lambda: cancelled(clock))
    assert isinstance(end, Completed | Cancelled), end
    return clock


def lost(engine: Engine, studio: Studio, clips: int) -> tuple[float, float, float]:
    """Seconds: arrival to first step, last clip to next step, arrival to next step when resumed."""
    job = studio.job(num_clips=clips + 1)
    first = timed(engine, job, lambda clock: len(clock.denoising) > clips)
    again = job.model_copy(update={"attempt": 2})
    resumed = timed(engine, again, lambda clock: len(clock.denoising) > 0)
    return (
        first.denoising[0],
        first.denoising[clips] - first.stored[clips - 1],
        resumed.denoising[0],
    )


def resumed() -> dict[str, Any]:
    """Lose jobs after some clips, print, and return the result."""
    device = detect()
    if device.kind == "cpu":
        torch.set_num_threads(cpu_threads())
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as name:
        folder = Path(name)
        config = CoreConfig(
            data_dir=folder / "data", models_dir=folder / "models", outputs_dir=folder / "outputs"
        )
        load = partial(build, config=config, device=device)
        engine = Engine(load=load, config=config, device=device, versions={})
        studio = Studio(engine, config)
        timed(engine, studio.job(num_clips=2))  # loads
        rows, result = [], {}
        for clips in LOST_AFTER:
            rounds = [lost(engine, studio, clips) for _ in range(ROUNDS)]
            arrival, between, again = (median(column) for column in zip(*rounds, strict=True))
            rows.append(
                {
                    "clips before": clips,
                    "new job, s": f"{arrival:.3f}",
                    "between clips, s": f"{between:.3f}",
                    "resumed, s": f"{again:.3f}",
                    "extra, s": f"{again - between:.3f}",
                }
            )
            result[str(clips)] = {
                "new_s": round(arrival, 4),
                "between_s": round(between, 4),
                "resumed_s": round(again, 4),
                "extra_s": round(again - between, 4),
            }
        engine.close()
    print_table(
        f"From a job's arrival, or the clip before, to the next clip's first step; demo model, "
        f"warm, medians of {ROUNDS}",
        rows,
    )
    return result
