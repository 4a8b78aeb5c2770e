"""What the step cache for Wan 2.2 saves, and what it costs, at several thresholds.

    python -m benchmarks.bench_step_cache [steps]

Two places: a field whose exact velocity is known (a mixture of Gaussians with the spectrum of
pictures, so that a step of it means something), and the camera demo with guidance and both experts.
Each is walked once without the cache, then with it, on three seeds. "Saved" is the share of steps
that were not computed; the error is the relative RMS of the final latents, PSNR that of the demo's
frames. The demo has random weights: the numbers say what the rule does, not how real videos look.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any, Final, cast

import numpy as np
import torch
from PIL import Image

from benchmarks.table import print_json, print_table
from core.pipelines import build
from core.pipelines.device import cpu_threads, detect
from core.pipelines.step_cache import StepCache
from core.pipelines.stock import FlowMatchScheduler
from core.pipelines.wan_video import WanVideo
from core.workflows.base import PipelineSpec
from tests.core.pipelines.demo_runs import Watched, arguments, folders

THRESHOLDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
SEEDS: Final = (0, 1, 2)
BOUNDARY: Final = 0.9
SIDE: Final = 64
SPREAD: Final = 0.5
"""Variance of each Gaussian, as a share of all."""
SOFTNESS: Final = 200.0
"""How long the Gaussians compete: at 1 the first step would choose one of them."""

Model = Callable[..., torch.Tensor]


class Pictures:
    """The exact velocity of noise that becomes pictures: (4, 64, 64) of eight kinds."""

    def __init__(self) -> None:
        waves = torch.fft.fftfreq(SIDE)[:, None].square() + torch.fft.rfftfreq(SIDE).square()
        power = waves.clamp_min(1 / SIDE**2).pow(-1.1)  # falls with the frequency to the 2.2
        self._power = power / power.mean()
        generator = torch.Generator().manual_seed(1)
        self._kinds = [self._coloured(_noise(generator)) for _ in range(8)]

    def __call__(self, *, latents: torch.Tensor, timestep: torch.Tensor, **_: Any) -> torch.Tensor:
        """The velocity at `latents` (4, 64, 64), in the call shape of the stock model."""
        sigma = float(timestep) / 1000
        clean = 1 - sigma
        total = clean**2 * SPREAD * self._power + sigma**2
        guesses, weights = [], []
        for kind in self._kinds:
            away = torch.fft.rfft2(latents - clean * kind)
            weights.append(-(away.abs().square() / total).sum() / (2 * SIDE**2 * SOFTNESS))
            shrunk = away * (clean * SPREAD * self._power / total)
            guesses.append(kind + torch.fft.irfft2(shrunk, s=(SIDE, SIDE)))
        share = torch.softmax(torch.stack(weights), dim=0)
        expected = sum(part * guess for part, guess in zip(share, guesses, strict=True))
        velocity: torch.Tensor = (latents - expected) / sigma
        return velocity

    def _coloured(self, noise: torch.Tensor) -> torch.Tensor:
        coloured: torch.Tensor = torch.fft.irfft2(
            torch.fft.rfft2(noise) * self._power.sqrt(), s=(SIDE, SIDE)
        )
        return coloured


def _noise(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(4, SIDE, SIDE, generator=generator)


def on_pictures(model: Model, steps: int, threshold: float, seed: int) -> tuple[torch.Tensor, int]:
    """(final picture, steps that were skipped) of the exact field, by the stock scheduler."""
    scheduler = FlowMatchScheduler("Wan")
    scheduler.set_timesteps(steps, shift=5.0)
    cache = StepCache(model, lambda: scheduler.timesteps, threshold)
    latents = _noise(torch.Generator().manual_seed(seed))
    for time in scheduler.timesteps:
        output = cache(dit=bool(time < BOUNDARY * 1000), latents=latents, timestep=time)
        latents = scheduler.step(output, time, latents)
    return latents, cache.skipped


class Demo:
    """The camera demo, loaded once; its time embedding is as slow as a trained one's."""

    def __init__(self, folder: Path) -> None:
        self._config = folders(folder)
        spec = PipelineSpec(family="wan_video", model="wan-demo-camera")
        run = Watched(self._config).run
        self._wan = cast("WanVideo", build(spec, run, config=self._config, device=detect()))
        noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        self._picture = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)

    def frames(self, steps: int, threshold: float, seed: int) -> tuple[torch.Tensor, Any, int]:
        """(latents, frames as (T, H, W, 3) uint8, steps that were skipped)."""
        run = Watched(self._config).run
        given = arguments(
            input_image=self._picture,
            seed=seed,
            width=128,
            height=128,
            num_inference_steps=steps,
            cfg_scale=3.5,
            camera_direction="left",
            step_cache=threshold,
        )
        latents = self._wan.denoise(run, **given)
        tiles = {name: given[name] for name in ("tiled", "tile_size", "tile_stride")}
        frames = self._wan.decode(run, latents, **tiles)
        return latents.float().cpu(), np.stack(list(frames)), run.metrics.get("steps_skipped", 0)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """RMS of the difference as a share of the exact one's RMS."""
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def psnr(found: Any, exact: Any) -> float:
    """Of 8-bit frames, in dB."""
    error = float(np.square(found.astype(np.float64) - exact).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def picture_rows(steps: int) -> list[dict[str, Any]]:
    """A row a threshold for the exact field."""
    model = Pictures()
    exact = [on_pictures(model, steps, 0.0, seed)[0] for seed in SEEDS]
    rows = []
    for threshold in THRESHOLDS:
        walks = [on_pictures(model, steps, threshold, seed) for seed in SEEDS]
        rows.append(
            {
                "threshold": threshold,
                "saved": f"{mean(skipped for _, skipped in walks) / steps:.0%}",
                "relative error": round(
                    mean(relative(a, b) for (a, _), b in zip(walks, exact, strict=True)), 4
                ),
            }
        )
    return rows


def demo_rows(steps: int) -> list[dict[str, Any]]:
    """A row a threshold for the demo."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder))
        exact = [demo.frames(steps, 0.0, seed) for seed in SEEDS]
        rows = []
        for threshold in THRESHOLDS:
            walks = [demo.frames(steps, threshold, seed) for seed in SEEDS]
            pairs = list(zip(walks, exact, strict=True))
            rows.append(
                {
                    "threshold": threshold,
                    "saved": f"{mean(walk[2] for walk in walks) / steps:.0%}",
                    "relative error": round(mean(relative(a[0], b[0]) for a, b in pairs), 4),
                    "PSNR dB": round(mean(psnr(a[1], b[1]) for a, b in pairs), 1),
                }
            )
        return rows


def main() -> None:
    """Print both tables, and the JSON line."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    torch.set_num_threads(cpu_threads())
    found = {"pictures": picture_rows(steps), "demo": demo_rows(steps)}
    print_table(f"Exact field of pictures, {steps} steps", found["pictures"])
    print_table(f"Camera demo, {steps} steps, guidance 3.5", found["demo"])
    print("\nNot measured: the quality of videos made with real weights.")
    print_json("step_cache", {"steps": steps, **found})


if __name__ == "__main__":
    main()
