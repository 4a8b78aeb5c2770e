"""Loading both experts from safetensors to the device, against reading the same bytes.

    python -m benchmarks.bench_loading [layers] [rounds]

Two files of random bfloat16 with the tensors of a Wan A14B expert, 40 layers (2 x 28.6 GB) or as
many as are asked for (0.7 GB each), in the page cache. Every way ends with all bytes in memory of
its own: what safetensors only maps is copied. All ways in turns, in one run; the ratio is taken
within each round, since what else the machine does changes from round to round.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from benchmarks.bench_lora import DIT
from benchmarks.table import print_json, print_table
from core.pipelines import demo_files, imports
from core.pipelines.demo_files import DemoModel, shapes_of
from core.pipelines.device import detect
from core.pipelines.loading import LocalModel, nothing, target_of
from core.pipelines.placement import Placement
from core.pipelines.stock import (
    ModelConfig,
    WanVideoPipeline,
    skip_model_initialization,
    wan_video_dit,
)

GOAL: Final = 0.9
DTYPE: Final = torch.bfloat16
PIECE: Final = 2**30
"""Bytes that one read asks for."""


class Bench:
    """Two files, and the ways to have what is in them."""

    def __init__(self, root: Path, layers: int) -> None:
        self.device = detect()
        settings = {**DIT, "num_layers": layers}
        with skip_model_initialization():
            shapes = shapes_of(wan_video_dit.WanModel(**settings))
        demo_files.register(
            (
                DemoModel(
                    shapes=shapes,
                    name="wan_video_dit",
                    model_class="diffsynth.models.wan_video_dit.WanModel",
                    settings=settings,
                ),
            )
        )
        self.paths = [root / "high.safetensors", root / "low.safetensors"]
        for path in self.paths:
            save_file({name: _random(shape) for name, shape in shapes.items()}, path)
        self.bytes = sum(path.stat().st_size for path in self.paths)

    def read(self) -> Any:
        """The bytes of the files, in new memory; no device is involved."""
        return [_plain_read(path) for path in self.paths]

    def ours(self) -> Any:
        """As a job loads them."""
        target = target_of(Placement(name="full"), self.device, DTYPE)
        return self._loaded(
            [LocalModel.of([path], {}, nothing, target=target) for path in self.paths]
        )

    def stock(self) -> Any:
        """DiffSynth's own way."""
        return self._loaded([ModelConfig(path=str(path)) for path in self.paths])

    def safetensors(self) -> Any:
        """The library's own way, without a model."""
        loaded = [load_file(path, device=self.device.kind) for path in self.paths]
        if self.device.kind == "cpu":
            return [{name: tensor.clone() for name, tensor in file.items()} for file in loaded]
        return loaded

    def _loaded(self, models: list[Any]) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            pipe = WanVideoPipeline(device=self.device.kind, torch_dtype=DTYPE)
            pool = pipe.download_and_load_models(models)
        if self.device.kind == "cuda":
            torch.cuda.synchronize()
        return pool


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(-(2**15), 2**15, shape, dtype=torch.int16).view(DTYPE)


def _plain_read(path: Path) -> torch.Tensor:
    """With as little as can be: one thread, one buffer, no copy."""
    buffer = torch.empty(path.stat().st_size, dtype=torch.uint8)
    array: Any = buffer.numpy()
    rest = memoryview(array)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(rest[:PIECE]):
            rest = rest[count:]
    return buffer


def _seconds(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    kept = way()
    spent = time.perf_counter() - began
    del kept  # freeing it takes time as well, which is not loading
    return spent


def main(layers: int = 3, rounds: int = 7) -> dict[str, Any]:
    """Run all ways in turns, print, and return the result."""
    imports.warm()
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as name:
        bench = Bench(Path(name), layers)
        ways = {
            "plain read": bench.read,
            "diffbox": bench.ours,
            "DiffSynth": bench.stock,
            "safetensors": bench.safetensors,
        }
        spent: dict[str, list[float]] = {what: [] for what in ways}
        for way in ways.values():
            way()  # brings the files into the page cache, and loads what is imported late
        for _ in range(rounds):
            for what, way in ways.items():
                spent[what].append(_seconds(way))
    ratios = {
        what: median(r / s for r, s in zip(spent["plain read"], values, strict=True))
        for what, values in spent.items()
    }
    rows = [
        {
            "way": what,
            "median s": f"{median(values):.2f}",
            "best s": f"{min(values):.2f}",
            "GB/s": f"{bench.bytes / median(values) / 1e9:.2f}",
            "of plain read": f"{ratios[what]:.2f}",
        }
        for what, values in spent.items()
    ]
    title = f"{bench.bytes / 1e9:.1f} GB to {bench.device.name}, goal {GOAL} of the plain read"
    print_table(title, rows)
    result = {
        "goal": GOAL,
        "bytes": bench.bytes,
        "device": bench.device.name,
        "torch_threads": torch.get_num_threads(),
        "median_s": {what: round(median(values), 3) for what, values in spent.items()},
        "ratio": {what: round(ratio, 3) for what, ratio in ratios.items()},
    }
    print_json("loading", result)
    return result


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
