"""Small runs of the Qwen demo: arguments of the adapter, and whole jobs from params to a PNG."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.config import CoreConfig
from core.controlnets import ControlnetHint
from core.engine import Engine
from core.pipelines.qwen_image import QwenImage
from core.protocol import Completed, Event, Job, TerminalEvent
from core.run import Run
from core.workflows import workflow
from core.workflows.base import PipelineSpec
from tests.support.pictures import encoded

Pixels = npt.NDArray[np.uint8]

DEMO = PipelineSpec(family="qwen_image", model="qwen-demo")
SIDE = 64


def spots(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A picture of soft random colours; another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def left_half(size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A mask whose left half is white."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def hint(**changes: Any) -> ControlnetHint:
    usual = {"image": spots(9), "mask": None, "scale": 1.0, "start": 0.0, "end": 1.0}
    return ControlnetHint(**{**usual, **changes})


def arguments(**changes: Any) -> dict[str, Any]:
    """What QwenImage.edit takes, small enough for a second."""
    usual = {
        "hint": None,
        "schedule": "regular",
        "prompt": "make it red",
        "negative_prompt": "blue",
        "edit_image": [spots()],
        "input_image": None,
        "inpaint_mask": None,
        "denoising_strength": 1.0,
        "seed": 7,
        "width": SIDE,
        "height": SIDE,
        "num_inference_steps": 3,
        "cfg_scale": 2.0,
        "exponential_shift_mu": None,
        "zero_cond_t": True,
        "tiled": False,
        "tile_size": (8, 8),
        "tile_stride": (4, 4),
    }
    return {**usual, **changes}


def edited(qwen: QwenImage, run: Run, **changes: Any) -> Pixels:
    """The picture that the adapter makes, (H, W, 3)."""
    return np.asarray(qwen.edit(run, **arguments(**changes)))


@dataclass
class Box:
    """An engine with the demo, and its folders."""

    engine: Engine
    config: CoreConfig

    def upload(self, picture: Image.Image, fmt: str = "PNG", **options: Any) -> str:
        """A reference to the picture's file."""
        content = encoded(picture, fmt, **options)
        digest = hashlib.sha256(content).hexdigest()
        self.config.uploads_dir.mkdir(parents=True, exist_ok=True)
        (self.config.uploads_dir / digest).write_bytes(content)
        return f"upload:{digest}"

    def end(
        self,
        emit: Callable[[Event], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        **raw: Any,
    ) -> TerminalEvent:
        """How a job with these params ends."""
        usual = {"prompt": "make it red", "seed": 7, "num_inference_steps": 2}
        params = workflow("qwen").parse({**usual, **raw})
        job = Job(workflow="qwen", params=params.model_dump(mode="json"))
        return self.engine.run(job, emit, cancelled)

    def path(self, **raw: Any) -> Path:
        """The PNG of a job that must complete."""
        end = self.end(**raw)
        assert isinstance(end, Completed), end
        [artifact] = end.artifacts
        assert (artifact.kind, artifact.media_type) == ("image", "image/png")
        return self.config.outputs_dir / artifact.url

    def pixels(self, **raw: Any) -> Pixels:
        """The picture of a job that must complete, (H, W, 3)."""
        with Image.open(io.BytesIO(self.path(**raw).read_bytes())) as picture:
            assert picture.mode == "RGB"
            return np.asarray(picture)
