"""Whole svi jobs on the demo, small enough for a few seconds."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from core.clips import FOLDER, StoredClip
from core.config import CoreConfig
from core.engine import Engine
from core.protocol import Clip, Completed, Event, Job, Plan, TerminalEvent, new_job_id
from core.workflows import workflow
from tests.core.pipelines.demo_runs import picture
from tests.support.pictures import encoded

SIDE, FRAMES, OVERLAP = 64, 13, 5
USUAL = {
    "prompts": ["a cat walks", "it sits down"],
    "num_clips": 3,
    "seed": 7,
    "width": SIDE,
    "height": SIDE,
    "num_frames": FRAMES,
    "num_inference_steps": 2,
    "model": "wan-demo",
}


@dataclass
class Studio:
    """An engine with the demo, and what its jobs told."""

    engine: Engine
    config: CoreConfig
    events: list[Event] = field(default_factory=list)

    def job(self, *, job_id: str = "", attempt: int = 1, **raw: Any) -> Job:
        svi = workflow("svi")
        params = svi.parse({**USUAL, "input_image": self.upload(), **raw})
        return Job(
            id=job_id or new_job_id(),
            workflow="svi",
            params=params.model_dump(mode="json"),
            plan=svi.plan(params),
            attempt=attempt,
        )

    def upload(self) -> str:
        content = encoded(picture(), "PNG")
        digest = hashlib.sha256(content).hexdigest()
        self.config.uploads_dir.mkdir(parents=True, exist_ok=True)
        (self.config.uploads_dir / digest).write_bytes(content)
        return f"upload:{digest}"

    def run(
        self,
        job: Job,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        steered: Callable[[], Plan | None] = lambda: None,
    ) -> TerminalEvent:
        self.events = []
        return self.engine.run(job, self.events.append, cancelled, steered)

    def made(self, job: Job, **how: Any) -> Completed:
        """How a job ends that must complete."""
        end = self.run(job, **how)
        assert isinstance(end, Completed), end
        return end

    def told(self) -> list[Clip]:
        return [event for event in self.events if isinstance(event, Clip)]

    def stored(self, job: Job) -> list[StoredClip]:
        """The job's clips in order."""
        records = (self.config.outputs_dir / job.id / FOLDER).glob("*.json")
        clips = [StoredClip.model_validate(json.loads(path.read_bytes())) for path in records]
        return sorted(clips, key=lambda clip: clip.index)

    def latents(self, job: Job) -> list[dict[str, torch.Tensor]]:
        folder = self.config.outputs_dir / job.id / FOLDER
        return [load_file(folder / clip.latents.filename) for clip in self.stored(job)]

    def segments(self, job: Job) -> list[bytes]:
        folder = self.config.outputs_dir / job.id / FOLDER
        return [(folder / clip.segment.filename).read_bytes() for clip in self.stored(job)]

    def frames(self, end: Completed) -> npt.NDArray[np.uint8]:
        """The frames of the job's mp4, (T, H, W, 3)."""
        return frames_of(self.config.outputs_dir / end.artifacts[0].url)


def frames_of(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a video file of SIDE x SIDE, as ffmpeg decodes them."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    argv += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(argv, check=True, capture_output=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, SIDE, SIDE, 3)


def same_latents(
    ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]
) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) for name in a
    )
