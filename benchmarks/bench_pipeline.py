"""Seconds a step of the real pipelines, here and by DiffSynth alone, with random weights.

    python -m benchmarks.bench_pipeline --random-weights full|tiny [--steps 4] [--cfg-merge]
        [--attention auto|flash|sage|sdpa] [--policy auto|full|offload|fp8] [--compile]

`full` has the size of Wan 2.2 I2V A14B (81 frames at 480p and 720p) and Qwen Image Edit in
bfloat16, and needs a CUDA device; `tiny` has that of the demos. Speed does not depend on what the
weights are. Both ways run on the same weights in one run, DiffSynth's own `__call__` first. A step
is timed from the end of the one before; the first, which waits for the encoders, is left out.
Totals are of the second call, in which ours knows prompt and picture already.
"""

from __future__ import annotations

import argparse
import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

import torch

from benchmarks.table import print_json, print_table
from core.config import CoreConfig, VramSetting
from core.errors import ConfigError
from core.pipelines import attention, compiling, imports
from core.pipelines.adapter import replaced
from core.pipelines.device import cpu_threads, detect, dtype_for, host_memory, peak_memory
from core.pipelines.loading import Loaded
from core.pipelines.placement import GIB, choose
from core.pipelines.preview import wan21_colours
from core.pipelines.stock import wan_video_dit
from core.pipelines.wan_variants import stock_arguments
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines import demo_runs, qwen_runs
from tests.core.pipelines.demo_runs import Watched

CFG: Final = 3.5
SIZES: Final[Mapping[str, Mapping[str, Mapping[str, tuple[int, ...]]]]] = {
    "full": {
        "wan": {"480p, 81 frames": (832, 480, 81), "720p, 81 frames": (1280, 720, 81)},
        "qwen": {"1328 x 1328": (1328, 1328)},
    },
    "tiny": {
        "wan": {"64 x 64, 9 frames": (64, 64, 9), "96 x 64, 13 frames": (96, 64, 13)},
        "qwen": {"64 x 64": (64, 64)},
    },
}
BILLIONS: Final = {"wan": 34.4, "qwen": 28.9}
"""Parameters of all parts at full size, for the choice of the placement."""
ELSEWHERE: Final = {
    "source": "LightX2V, docs/EN/source/getting_started/benchmark_source.md; Wan 2.1 14B I2V, one "
    "H200, 81 frames, whole videos in s, 40 steps with guidance unless said",
    "480p": {"official": 366, "sage2": 216, "sage2, fp8": 191, "fp8, 4 steps, no guidance": 14},
    "720p": {"official": 974, "sage2": 751, "sage2, fp8": 671, "fp8, 4 steps, no guidance": 44},
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What was asked for, and where it runs."""

    asked: argparse.Namespace
    config: CoreConfig
    loaded: Loaded
    load_s: float

    def measured(self, call: Callable[[], Any]) -> dict[str, float]:
        """How long the call and its steps take, and its peak of memory."""
        device = detect()
        peak_memory(device)
        began = time.perf_counter()
        with _stamped(self.loaded.pipe.scheduler) as ends:
            call()
        _wait()
        spent = time.perf_counter() - began
        return {
            "s_per_step": median(after - before for before, after in pairwise(ends)),
            "total_s": spent,
            "peak_gib": peak_memory(device) / GIB,
        }


@contextmanager
def _stamped(scheduler: Any) -> Iterator[list[float]]:
    """The times at which steps end."""
    ends: list[float] = []
    stock = scheduler.step

    def step(*args: Any, **given: Any) -> Any:
        stepped = stock(*args, **given)
        _wait()
        ends.append(time.perf_counter())
        return stepped

    with replaced(scheduler, "step", step):
        yield ends


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _wan_call(setup: Setup, size: tuple[int, ...], cfg: float, adapter: Any) -> None:
    """A video, decoded: by DiffSynth, or by ours where there is an adapter."""
    width, height, frames = size
    tiled = {"tiled": False, "tile_size": (30, 52), "tile_stride": (15, 26)}
    given = demo_runs.arguments(
        width=width,
        height=height,
        num_frames=frames,
        num_inference_steps=setup.asked.steps,
        cfg_scale=cfg,
        cfg_merge=setup.asked.cfg_merge and cfg > 1,
        input_image=demo_runs.picture().resize((width, height)),
        **tiled,
    )
    if adapter is None:
        pipe = setup.loaded.pipe
        pipe(**stock_arguments(pipe, given), progress_bar_cmd=iter)
        return
    run = Watched(setup.config).run
    for _ in adapter.decode(run, adapter.denoise(run, **given), **tiled):
        pass


def _qwen_call(setup: Setup, size: tuple[int, ...], cfg: float, adapter: Any) -> None:
    """A picture: by DiffSynth, or by ours where there is an adapter."""
    given = qwen_runs.arguments(
        width=size[0],
        height=size[1],
        num_inference_steps=setup.asked.steps,
        cfg_scale=cfg,
        edit_image=[qwen_runs.spots(size=(size[0], size[1]))],
    )
    if adapter is None:
        stock = {name: value for name, value in given.items() if name not in _OURS_ALONE}
        setup.loaded.pipe(**stock, edit_image_auto_resize=False, progress_bar_cmd=iter)
        return
    adapter.edit(Watched(setup.config).run, **given)


_OURS_ALONE: Final = frozenset({"hint", "schedule"})
_CALLS: Final = {"wan": _wan_call, "qwen": _qwen_call}


def _adapter(family: str, setup: Setup) -> Any:
    from core.pipelines.qwen_image import QwenImage  # noqa: PLC0415  # after imports.warm()

    if setup.asked.compile:
        compiling.compile_blocks(setup.loaded, setup.config)
    kind: Any = {"wan": WanVideo, "qwen": QwenImage}[family]
    return kind(setup.loaded, colours=wan21_colours(), device=detect(), provenance={})


def _setup(family: str, asked: argparse.Namespace, config: CoreConfig) -> Setup:
    from benchmarks import random_models  # noqa: PLC0415  # after imports.warm()
    from core.pipelines.stock_qwen import qwen_image_dit  # noqa: PLC0415

    device = detect()
    module = {"wan": wan_video_dit, "qwen": qwen_image_dit}[family]
    attention.choose(asked.attention, module)
    size = BILLIONS[family] * 1e9 * dtype_for(device).itemsize if asked.weights == "full" else 0
    placement = choose(
        cast("VramSetting", asked.policy),
        device,
        weights_bytes=int(size),
        host_free_bytes=host_memory()[1],
    )
    began = time.perf_counter()
    make = {"wan": random_models.wan, "qwen": random_models.qwen}[family]
    pipe = make(asked.weights, placement, device, config.models_dir)
    _wait()
    return Setup(
        asked=asked,
        config=config,
        loaded=Loaded(pipe=pipe, placement=placement),
        load_s=time.perf_counter() - began,
    )


def _family(family: str, asked: argparse.Namespace, config: CoreConfig) -> list[dict[str, Any]]:
    """A row for each size, guidance and way; all of DiffSynth's before ours are compiled."""
    setup = _setup(family, asked, config)
    sizes = SIZES[asked.weights][family]
    cases = [(name, size, cfg) for name, size in sizes.items() for cfg in (CFG, 1.0)]
    rows = []
    for way in ("DiffSynth", "diffbox"):
        adapter = _adapter(family, setup) if way == "diffbox" else None
        for name, size, cfg in cases:
            call = partial(_CALLS[family], setup, size, cfg, adapter)
            first = setup.measured(call)  # warms up, and compiles
            rows.append(
                {
                    "model": family,
                    "size": name,
                    "guidance": cfg,
                    "way": way,
                    **setup.measured(call),
                    "first_total_s": first["total_s"],
                    "load_s": setup.load_s,
                    "placement": setup.loaded.placement.name,
                }
            )
    return rows


def main(asked: argparse.Namespace) -> dict[str, Any]:
    """Run all, print, and return the result."""
    if asked.weights == "full" and not torch.cuda.is_available():
        raise SystemExit(
            "--random-weights full makes 69 GB of weights on a CUDA device, and there is none: "
            "use tiny"
        )
    if not torch.cuda.is_available():
        torch.set_num_threads(cpu_threads())
    logging.disable(logging.WARNING)
    imports.warm()
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as name:
        config = demo_runs.folders(Path(name))
        rows = []
        for family in ("wan", "qwen"):
            rows += _family(family, asked, config)
            gc.collect()  # compiled blocks hold themselves
            torch.cuda.empty_cache()
    used = attention.name_of(wan_video_dit)
    title = f"{asked.weights}, {detect().name}, {used}, {asked.steps} steps"
    shown = [
        {k: f"{v:.3f}" if isinstance(v, float) and k != "guidance" else v for k, v in row.items()}
        for row in rows
    ]
    print_table(title, shown)
    result = {
        "weights": asked.weights,
        "device": detect().name,
        "dtype": str(dtype_for(detect())).removeprefix("torch."),
        "attention": used,
        "cfg_merge": asked.cfg_merge,
        "compile": asked.compile,
        "steps": asked.steps,
        "rows": rows,
        "elsewhere": ELSEWHERE,
    }
    print_json("pipeline", result)
    return result


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_pipeline")
    parser.add_argument("--random-weights", dest="weights", choices=("full", "tiny"), required=True)
    parser.add_argument("--attention", choices=("auto", "flash", "sage", "sdpa"), default="auto")
    parser.add_argument("--policy", choices=("auto", "full", "offload", "fp8"), default="auto")
    parser.add_argument("--steps", type=int, choices=range(3, 51), metavar="3..50", default=4)
    parser.add_argument("--cfg-merge", action="store_true", help="Wan: both sides in one forward")
    parser.add_argument("--compile", action="store_true", help="compile ours")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main(_asked())
    except ConfigError as error:
        raise SystemExit(error.message) from error
