"""A demo job through the Engine against WanVideoPipeline called directly, in one process, in turns.

    python -m benchmarks.bench_engine [rounds]

Same weights, same arguments, both write an mp4: the Engine as for any job, the direct call with
DiffSynth's own save_video. The ratio of the medians is what progress, previews, cancel, embedded
metadata and safe storage cost; the frames must be identical.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from benchmarks.table import print_json, print_table
from core.config import CoreConfig
from core.engine import Engine
from core.pipelines import build, versions
from core.pipelines.decoding import Frame
from core.pipelines.device import cpu_threads, detect
from core.pipelines.wan_video import WanVideo
from core.protocol import Completed, Device, Job
from core.run import Run
from core.workflows import workflow
from core.workflows.base import PipelineSpec

GOAL: Final = 1.03
SIZE: Final = 256


class Both:
    """An Engine, and the pipeline that it has loaded for the direct calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = ""
        self.adapter: WanVideo | None = None
        config = CoreConfig(
            data_dir=folder / "data", models_dir=folder / "models", outputs_dir=folder / "outputs"
        )
        device = detect()
        self.engine = Engine(
            load=partial(self._load, config=config, device=device),
            config=config,
            device=device,
            versions=versions(),
        )

    def _load(
        self, spec: PipelineSpec, run: Run, *, config: CoreConfig, device: Device
    ) -> WanVideo:
        adapter = build(spec, run, config=config, device=device)
        assert isinstance(adapter, WanVideo)
        self.adapter = adapter
        stock_decode = self.adapter.decode

        def noted(*args: Any, **kwargs: Any) -> Iterator[Frame]:
            digest = hashlib.sha256()
            for frame in stock_decode(*args, **kwargs):
                digest.update(frame.tobytes())
                yield frame
            self.frames = digest.hexdigest()

        self.adapter.decode = noted  # type: ignore[method-assign]
        return self.adapter

    def through_engine(self) -> tuple[float, str]:
        """Seconds for a whole job, and a hash of its frames."""
        job = Job(workflow="i2v", params=settled_params())
        began = time.perf_counter()
        done = self.engine.run(job, lambda event: None, lambda: False)
        spent = time.perf_counter() - began
        assert isinstance(done, Completed), done
        return spent, self.frames

    def directly(self) -> tuple[float, str]:
        """The same as a script would do it."""
        from diffsynth.utils.data import save_video  # noqa: PLC0415  # after our deferred import

        assert self.adapter is not None
        given = settled_params()
        names = "prompt negative_prompt denoising_strength seed width height num_frames cfg_scale"
        names += " num_inference_steps sigma_shift tiled tile_size tile_stride"
        began = time.perf_counter()
        video = self.adapter._pipe(
            **{name: given[name] for name in names.split()},
            input_image=picture(),
            switch_DiT_boundary=given["switch_dit_boundary"],
            progress_bar_cmd=lambda timesteps: timesteps,
        )
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            save_video(video, str(self.folder / "direct.mp4"), fps=given["fps"], quality=5)
        spent = time.perf_counter() - began
        digest = hashlib.sha256()
        for frame in video:
            digest.update(np.asarray(frame).tobytes())
        return spent, digest.hexdigest()


def picture() -> Image.Image:
    """A picture with colours and edges."""
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def settled_params() -> dict[str, Any]:
    """The demo's own defaults: 256 x 256, 17 frames, 8 steps."""
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    raw = {"prompt": "a cat walks", "input_image": uri, "seed": 7, "model": "wan-demo"}
    settled: dict[str, Any] = workflow("i2v").parse(raw).model_dump(mode="json")
    return settled


def main(rounds: int = 5) -> dict[str, Any]:
    """Run both in turns, print, and return the result."""
    spent: dict[str, list[float]] = {"Engine": [], "direct": []}
    hashes = set()
    if not torch.cuda.is_available():
        torch.set_num_threads(cpu_threads())  # as the worker does
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as folder:
        both = Both(Path(folder))
        both.through_engine()  # loads
        both.directly()
        for _ in range(rounds):
            for name, call in (("Engine", both.through_engine), ("direct", both.directly)):
                seconds, frames = call()
                spent[name].append(seconds)
                hashes.add(frames)
    ratio = median(spent["Engine"]) / median(spent["direct"])
    rows = [
        {
            "what": name,
            "median s": f"{median(values):.3f}",
            "least s": f"{min(values):.3f}",
            "most s": f"{max(values):.3f}",
        }
        for name, values in spent.items()
    ]
    print_table(
        f"Demo job, {rounds} rounds, {torch.get_num_threads()} threads: "
        f"ratio {ratio:.3f} (goal {GOAL}), frames {'identical' if len(hashes) == 1 else 'DIFFER'}",
        rows,
    )
    result = {
        "ratio": round(ratio, 4),
        "engine_s": round(median(spent["Engine"]), 3),
        "direct_s": round(median(spent["direct"]), 3),
        "identical": len(hashes) == 1,
    }
    print_json("engine", result)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
