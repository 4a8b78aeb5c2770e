"""Small runs of the demo pipeline: their arguments, and a Run that collects what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.config import CoreConfig
from core.controlnets import ControlnetShelf
from core.fetch import Inputs
from core.lora import LoraShelf
from core.pipelines.wan_video import WanVideo
from core.progress import ProgressMeter
from core.protocol import Job
from core.run import Run
from core.storage import LocalStorage
from core.workflows.base import PipelineSpec

Frames = npt.NDArray[np.uint8]

DEMO = PipelineSpec(family="wan_video", model="wan-demo")
SIZE = 64
FRAMES = 9


@dataclass
class Watched:
    """A Run and what it told; set `cancel` to end it."""

    config: CoreConfig
    events: list[Any] = field(default_factory=list)
    cancel: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.run = Run(
            Job(workflow="i2v", params={}),
            emit=self.events.append,
            cancelled=self._cancelled,
            load=lambda spec, run: None,
            inputs=Inputs(self.config),
            storage=LocalStorage(self.config.outputs_dir),
            meter=ProgressMeter(),
            loras=LoraShelf(self.config),
            controlnets=ControlnetShelf(self.config),
        )

    def _cancelled(self) -> bool:
        return self.cancel()


def folders(root: Path) -> CoreConfig:
    return CoreConfig(
        data_dir=root / "data", models_dir=root / "models", outputs_dir=root / "outputs"
    )


def picture(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def arguments(**changes: Any) -> dict[str, Any]:
    """What WanVideo.denoise takes, small enough for a second."""
    usual = {
        "prompt": "a cat walks",
        "negative_prompt": "blurred",
        "input_image": picture(),
        "end_image": None,
        "input_video": None,
        "denoising_strength": 1.0,
        "seed": 7,
        "width": SIZE,
        "height": SIZE,
        "num_frames": FRAMES,
        "num_inference_steps": 3,
        "cfg_scale": 2.0,
        "sigma_shift": 5.0,
        "switch_dit_boundary": 0.9,
        "tiled": False,
        "tile_size": (6, 6),
        "tile_stride": (4, 4),
    }
    return {**usual, **changes}


def frames_by(wan: WanVideo, run: Run, **changes: Any) -> Frames:
    """The video that the adapter makes, (T, H, W, 3)."""
    given = arguments(**changes)
    latents = wan.denoise(run, **given)
    tiles = {name: given[name] for name in ("tiled", "tile_size", "tile_stride")}
    return np.stack(list(wan.decode(run, latents, **tiles)))
