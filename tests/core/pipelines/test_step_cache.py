"""The step cache: which steps it leaves out, when it forgets, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from core.pipelines.step_cache import REACH, StepCache
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import Watched, arguments

STEPS = 16
HIGH = object()
LOW = object()


@dataclass
class Field:
    """A smooth vector field in place of a model; counts what it is asked."""

    asked: list[tuple[Any, float, bool]] = field(default_factory=list)

    def __call__(self, *, dit: Any, latents: torch.Tensor, **inputs: Any) -> torch.Tensor:
        time = float(inputs["timestep"]) / 1000
        side = bool(inputs["positive"])
        self.asked.append((dit, time, side))
        return latents * (0.3 + time) + (0.5 if side else -0.5)


def timesteps() -> torch.Tensor:
    return torch.linspace(1000, 0, STEPS + 1)[:-1]


def walk(
    model: Callable[..., torch.Tensor], *, switch_at: int = STEPS, sides: tuple[bool, ...] = (True,)
) -> torch.Tensor:
    """What the stock loop does with a model: from `switch_at` on it is the other expert."""
    latents = torch.linspace(-1, 1, 64)
    for index, time in enumerate(timesteps()):
        dit = HIGH if index < switch_at else LOW
        outputs = [
            model(dit=dit, latents=latents, timestep=time, positive=positive) for positive in sides
        ]
        latents = latents - sum(outputs) / len(outputs) / STEPS
    return latents


def cached(model: Field, threshold: float) -> StepCache:
    return StepCache(model, timesteps, threshold)


def test_a_smooth_field_is_asked_less_and_the_result_stays_near() -> None:
    exact = walk(Field())
    cache = cached(field := Field(), 0.1)
    near = walk(cache)
    assert cache.skipped >= STEPS // 4
    assert len(field.asked) == STEPS - cache.skipped
    assert float((near - exact).abs().max()) < 0.02


def test_more_is_skipped_and_the_error_grows_with_the_threshold() -> None:
    exact = walk(Field())
    skipped, errors = [], []
    for threshold in (0.0, 0.1, 0.4, 1.0):
        cache = cached(Field(), threshold)
        errors.append(float((walk(cache) - exact).abs().max()))
        skipped.append(cache.skipped)
    assert skipped == sorted(set(skipped)) and skipped[0] == 0
    assert errors == sorted(set(errors)) and errors[0] == 0


def test_first_two_and_last_step_are_always_computed() -> None:
    walk(cached(field := Field(), 100.0))
    times = [round(time * STEPS) for _, time, _ in field.asked]
    assert times[:2] == [STEPS, STEPS - 1]
    assert times[-1] == 1
    assert len(times) < STEPS // 2


def test_a_line_is_not_continued_for_long() -> None:
    walk(cached(field := Field(), 100.0))
    computed = [STEPS - round(time * STEPS) for _, time, _ in field.asked]
    for older, newest, following in zip(computed, computed[1:], computed[2:], strict=False):
        assert following - newest <= REACH * (newest - older) + 1
    assert computed[2] == 4  # 2 and 3 are 1 and 2 distances behind, 4 would be 3


def test_another_expert_begins_anew() -> None:
    walk(cached(field := Field(), 100.0), switch_at=6)
    asked = [(dit, STEPS - round(time * STEPS)) for dit, time, _ in field.asked]
    assert asked[:5] == [(HIGH, 0), (HIGH, 1), (HIGH, 4), (LOW, 6), (LOW, 7)]
    assert asked[5] == (LOW, 10)


def test_both_sides_are_skipped_together_and_continued_apart() -> None:
    cache = cached(field := Field(), 0.3)
    walk(cache, sides=(True, False))
    asked = [(time, side) for _, time, side in field.asked]
    assert asked[::2] == [(time, True) for time, side in asked if side]
    assert asked[1::2] == [(time, False) for time, _ in asked[::2]]
    assert cache.skipped


def test_a_field_that_stands_still_divides_by_nothing() -> None:
    def still(*, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.zeros_like(latents)

    cache = StepCache(still, timesteps, 0.5)
    assert torch.equal(walk(cache), torch.linspace(-1, 1, 64))
    assert cache.skipped == 0


# --- on the demo ---------------------------------------------------------------------------------


def latents_by(wan: WanVideo, watched: Watched, threshold: float | None) -> np.ndarray[Any, Any]:
    given = {} if threshold is None else {"step_cache": threshold}
    made = wan.denoise(watched.run, **arguments(num_inference_steps=8, **given))
    return made.float().cpu().numpy()


def test_threshold_0_is_off_bit_by_bit(wan: WanVideo, watched: Watched) -> None:
    assert np.array_equal(latents_by(wan, watched, None), latents_by(wan, watched, 0.0))
    assert "steps_skipped" not in watched.run.metrics


def test_a_threshold_that_nothing_stays_below_changes_nothing(
    wan: WanVideo, watched: Watched
) -> None:
    assert np.array_equal(latents_by(wan, watched, None), latents_by(wan, watched, 1e-9))
    assert watched.run.metrics["steps_skipped"] == 0


def test_skipped_steps_are_told_and_each_call_begins_anew(
    wan: WanVideo, config: Any, watched: Watched
) -> None:
    first = latents_by(wan, watched, 1.0)
    told = watched.run.metrics["steps_skipped"]
    assert told > 0
    assert np.array_equal(first, latents_by(wan, watched, 1.0))
    assert watched.run.metrics["steps_skipped"] == 2 * told
    assert not np.array_equal(first, latents_by(wan, watched, None))


def test_the_stock_model_is_back_after_an_error(wan: WanVideo, watched: Watched) -> None:
    stock = wan._pipe.model_fn
    with pytest.raises(TypeError):
        wan.denoise(watched.run, **arguments(no_such_argument=1, step_cache=0.5))
    assert wan._pipe.model_fn is stock
