"""A cache across denoising steps for models without TeaCache coefficients, such as Wan 2.2.

    computed   v(i-1), v(i)      predicted change since step i = k · |x - x(i)| / |v(i)|,
    skipped    v = v(i) + (v(i) - v(i-1)) · (t - t(i)) / (t(i) - t(i-1))
                                 with k = |v(i) - v(i-1)| / |x(i) - x(i-1)|, as EasyCache has it

A step whose predicted change is below the threshold is not computed: the last two computed outputs
go on in a straight line, for a while. It needs no training and no coefficients. The other expert
begins anew, and the last step is always computed; so are the first two of each expert. The prompt's
side decides for both sides: guidance would multiply what differs between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from core.pipelines.adapter import replaced
from core.run import Run

REACH: Final = 2.5
"""How far a line is continued, in distances between its two ends. Without a limit the line leaves
the field at high thresholds: docs/benchmarks.md, step cache."""


@contextmanager
def cached_steps(pipe: Any, run: Run, threshold: float) -> Iterator[None]:
    """While it lasts, the pipeline's model is asked through a StepCache; at 0 as ever.

    Args:
        pipe: a WanVideoPipeline.
        run: its metrics are told how many steps were skipped.
        threshold: predicted relative change below which a step is skipped.
    """
    if not threshold:
        yield
        return
    cache = StepCache(pipe.model_fn, lambda: pipe.scheduler.timesteps, threshold)
    with replaced(pipe, "model_fn", cache):
        yield
    run.metrics["steps_skipped"] = run.metrics.get("steps_skipped", 0) + cache.skipped


@dataclass(frozen=True, slots=True)
class _Computed:
    """One forward: `latents` went in at `timestep`, `output` came out."""

    timestep: float
    latents: torch.Tensor
    output: torch.Tensor


class StepCache:
    """Stands before `model_fn` for one call of the pipeline.

    Args:
        model_fn: the stock one.
        timesteps: gives those of the call, once it has begun.
        threshold: as for `cached_steps`.
    """

    def __init__(
        self,
        model_fn: Callable[..., torch.Tensor],
        timesteps: Callable[[], torch.Tensor],
        threshold: float,
    ) -> None:
        self.skipped = 0
        self._model_fn = model_fn
        self._timesteps = timesteps
        self._threshold = threshold
        self._step = -1
        self._skip = False
        self._dit: Any = None
        self._sides: dict[bool, list[_Computed]] = {}

    def __call__(self, *, dit: Any, latents: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """The model's output (B, C, T, h, w), computed or continued."""
        side = bool(inputs.get("positive", True))  # both sides at once have no such input
        if side:
            self._begin(dit, latents)
        if self._skip:
            return self._continued(side)
        output = self._model_fn(dit=dit, latents=latents, **inputs)
        known = self._sides.setdefault(side, [])
        self._sides[side] = [*known[-1:], _Computed(self._timestep, latents, output)]
        return output

    @property
    def _timestep(self) -> float:
        # Not the one that the model gets: in bfloat16 neighbours fall together.
        return float(self._timesteps()[self._step])

    def _begin(self, dit: Any, latents: torch.Tensor) -> None:
        """The next step: start anew with another expert, and choose whether to compute."""
        self._step += 1
        if dit is not self._dit:
            self._dit = dit
            self._sides.clear()
        last = self._step == len(self._timesteps()) - 1
        self._skip = not last and self._predicted(latents) < self._threshold
        self.skipped += self._skip

    def _predicted(self, latents: torch.Tensor) -> float:
        """Relative change of the output since it was last computed; infinite when unknown."""
        computed = self._sides.get(True, [])
        if len(computed) < 2:
            return math.inf
        older, newest = computed
        if self._ahead(older, newest) > REACH:
            return math.inf
        moved, size = _distance(newest.latents, older.latents), float(_size(newest.output))
        if not moved or not size:
            return math.inf
        rate = _distance(newest.output, older.output) / moved
        return rate * _distance(latents, newest.latents) / size

    def _continued(self, side: bool) -> torch.Tensor:
        older, newest = self._sides[side]
        return newest.output + (newest.output - older.output) * self._ahead(older, newest)

    def _ahead(self, older: _Computed, newest: _Computed) -> float:
        """How far this step lies behind `newest`, in distances between the two."""
        return (self._timestep - newest.timestep) / (newest.timestep - older.timestep)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(_size(a.float() - b.float()))


def _size(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float().abs().mean()
