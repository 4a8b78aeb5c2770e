"""How far a run is and how long it still takes.

The fraction is of the whole job and never falls. The time left is told once two denoising steps
were timed; after that it counts down and is corrected by what the steps, of denoising and then of
decoding, really take. A job of several clips goes through the stages once a clip; while
nobody knows how many there will be, the fraction stays at 0 and no time left is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from core.protocol import Stage

# Where each stage ends, as a fraction of the job. Loading counts little because it is rarely
# needed: the pipeline stays between jobs.
_ENDS: Final[dict[Stage, float]] = {
    Stage.LOADING: 0.05,
    Stage.ENCODING: 0.08,
    Stage.DENOISING: 0.90,
    Stage.DECODING: 0.98,
    Stage.SAVING: 0.99,
    Stage.UPLOADING: 1.0,
}
_ORDER: Final = tuple(_ENDS)
_SMOOTHING: Final = 0.3
"""Weight of the newest step in the running mean of step times."""
_TAIL_GUESS: Final = 0.1
"""Decoding and saving as a share of denoising, until a job has been timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeterState:
    """One reading."""

    stage: Stage
    step: int
    steps: int
    fraction: float
    eta_s: float | None


@dataclass(slots=True)
class ProgressMeter:
    """Turns stages and steps into a fraction and a time left. One a run.

    `tail_share` is what decoding and saving took beside denoising in earlier runs.
    """

    tail_share: float = _TAIL_GUESS
    clock: Callable[[], float] = time.monotonic
    stage: Stage = Stage.LOADING
    step_index: int = 0
    steps: int = 0
    seconds: dict[Stage, float] = field(default_factory=dict)
    """How long each finished stage took."""
    _entered: float | None = None
    _stepped: float = 0.0
    _step_s: float | None = None
    _timed_steps: int = 0
    _fraction: float = 0.0
    _eta: tuple[float, float] | None = None
    _clip: int = 0
    _clips: int | None = 1
    _clip_began: float | None = None
    _clip_s: float | None = None

    @property
    def stage_done(self) -> bool:
        """Whether all steps of the present stage are finished."""
        return 0 < self.steps <= self.step_index

    def begin_clip(self, done: int, clips: int | None) -> None:
        """Another clip begins, after `done` others of this job; None: nobody knows how many."""
        now = self.clock()
        if self._clip_began is not None and done > self._clip:
            self._clip_s = (now - self._clip_began) / (done - self._clip)
        self._clip, self._clips, self._clip_began = done, clips, now
        self._eta = None if self._clip_s is None else (now, self._clip_s)

    def enter(self, stage: Stage, steps: int) -> None:
        """A stage begins."""
        self._leave()
        self.stage, self.steps, self.step_index = stage, steps, 0
        self._entered = self._stepped = self.clock()
        self._step_s, self._timed_steps = None, 0

    def step(self, done: int) -> None:
        """`done` steps of the stage are finished."""
        now = self.clock()
        fresh = done - self.step_index
        if fresh > 0:
            took = (now - self._stepped) / fresh
            # The first step carries one-off costs (kernels, allocation): the second replaces it.
            mean = (
                took
                if self._timed_steps <= 1 or self._step_s is None
                else (self._step_s + _SMOOTHING * (took - self._step_s))
            )
            self._step_s, self._stepped = mean, now
            self._timed_steps += 1
            self.step_index = done

    def finish(self) -> dict[Stage, float]:
        """Seconds of every stage; the run is over."""
        self._leave()
        self._entered = None
        return self.seconds

    def state(self) -> MeterState:
        """The present reading."""
        start = _ENDS[_ORDER[i - 1]] if (i := _ORDER.index(self.stage)) else 0.0
        inside = self.step_index / self.steps if self.steps else 0.0
        here = start + (_ENDS[self.stage] - start) * min(inside, 1.0)
        if self._clips is not None:
            self._fraction = max(self._fraction, (self._clip + here) / max(self._clips, 1))
        return MeterState(
            stage=self.stage,
            step=self.step_index,
            steps=self.steps,
            fraction=round(self._fraction, 4),
            eta_s=self._remaining(),
        )

    def _remaining(self) -> float | None:
        now = self.clock()
        if self._step_s is not None and self._timed_steps >= 2:
            left = (self.steps - self.step_index) * self._step_s
            if self.stage is Stage.DENOISING:
                self._eta = (now, left + self.steps * self._step_s * self.tail_share)
            elif self.stage is Stage.DECODING:
                self._eta = (now, left)
        if self._eta is None or self._clips is None:
            return None
        told_at, eta = self._eta
        return round(max(0.0, eta - (now - told_at)) + self._later(now, eta), 1)

    def _later(self, now: float, eta: float) -> float:
        """Seconds for the clips after this one: as the last one took, or as this one will."""
        clips = (self._clips or 1) - self._clip - 1
        if clips <= 0 or self._clip_began is None:
            return 0.0
        return clips * (self._clip_s or now - self._clip_began + eta)

    def _leave(self) -> None:
        if self._entered is not None:
            spent = self.clock() - self._entered
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + spent


def tail_share(seconds: dict[Stage, float]) -> float | None:
    """Decoding and saving as a share of denoising, of a finished run."""
    denoising = seconds.get(Stage.DENOISING, 0.0)
    if denoising <= 0:
        return None
    return (seconds.get(Stage.DECODING, 0.0) + seconds.get(Stage.SAVING, 0.0)) / denoising
