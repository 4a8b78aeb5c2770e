"""Changing the LoRAs of a loaded pipeline, against reading the same files; and against DiffSynth.

    python -m benchmarks.bench_lora [rank] [rounds]

Two files for the modules of a Wan A14B expert, in the page cache. The base has no weights (meta
tensors): a LoRA does not touch them. On a CUDA device if there is one, else in the memory.
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
from safetensors.torch import save_file

from benchmarks.table import print_json, print_table
from core.lora import LoraPart, LoraShelf, LoraUse
from core.pipelines.lora import HotLoras
from core.pipelines.stock import WanVideoPipeline, skip_model_initialization, wan_video_dit
from tests.core.pipelines.demo_runs import Watched
from tests.support.loras import WAN_BRANCHES, folders, write_header

GOAL: Final = 1.0
DIT: Final = {
    "has_image_input": False,
    "patch_size": [1, 2, 2],
    "in_dim": 36,
    "dim": 5120,
    "ffn_dim": 13824,
    "freq_dim": 256,
    "text_dim": 4096,
    "out_dim": 16,
    "num_heads": 40,
    "num_layers": 40,
    "eps": 1e-06,
    "require_clip_embedding": False,
}
MODEL: Final = "wan2.2-i2v-a14b"


class Bench:
    """A pipeline with the modules of the real one, and two LoRA files."""

    def __init__(self, root: Path, rank: int) -> None:
        self.config = folders(root)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe = WanVideoPipeline(device=device, torch_dtype=torch.bfloat16)
        with skip_model_initialization():
            self.pipe.dit = wan_video_dit.WanModel(**DIT)
        self.linears = {
            name: (module.out_features, module.in_features)
            for name, module in self.pipe.dit.named_modules()
            if isinstance(module, torch.nn.Linear) and name.endswith(WAN_BRANCHES)
        }
        folder = self.config.models_dir / "base/Wan-AI/Wan2.2-I2V-A14B/high_noise_model"
        weights = {f"{name}.weight": shape for name, shape in self.linears.items()}
        write_header(folder / "diffusion_pytorch_model.safetensors", weights)
        self.uses = [self._lora(name, rank) for name in ("a", "b")]
        self.hot = HotLoras(self.pipe)
        self.run = Watched(self.config).run

    def _lora(self, name: str, rank: int) -> LoraUse:
        path = self.config.models_dir / "lora" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for module, (outputs, inputs) in self.linears.items():
            tensors[f"{module}.lora_A.default.weight"] = torch.randn(rank, inputs).bfloat16()
            tensors[f"{module}.lora_B.default.weight"] = torch.randn(outputs, rank).bfloat16()
        save_file(tensors, path)
        part = LoraPart(place="", expert="high", name=path.name, strength=0.8)
        (use,) = LoraShelf(self.config).uses(MODEL, "i2v", [part])
        return use

    def read(self, index: int) -> None:
        """The file's bytes, into new memory as its matrices are."""
        self.uses[index].path.read_bytes()

    def switch(self, index: int) -> None:
        """From whatever is on to this one file."""
        self.hot.use([self.uses[index]], self.run)
        _wait()

    def stock(self, index: int) -> None:
        """The same by DiffSynth's own calls."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.pipe.clear_lora()
            self.pipe.load_lora(self.pipe.dit, str(self.uses[index].path), alpha=0.8)
        _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _seconds(work: Callable[[int], None], index: int) -> float:
    began = time.perf_counter()
    work(index)
    return time.perf_counter() - began


def main(rank: int = 64, rounds: int = 5) -> dict[str, Any]:
    """Run all in turns, print, and return the result."""
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as name:
        bench = Bench(Path(name), rank)
        size = bench.uses[0].path.stat().st_size
        works = {"read": bench.read, "switch": bench.switch, "DiffSynth": bench.stock}
        spent: dict[str, list[float]] = {what: [] for what in works}
        bench.switch(0)  # wraps the modules, once
        for turn in range(rounds):
            for what, work in works.items():
                spent[what].append(_seconds(work, (turn + 1) % 2))
        bench.hot.clear()
    best = {what: min(values) for what, values in spent.items()}
    rows = [
        {
            "what": what,
            "median s": f"{median(values):.3f}",
            "GB/s": f"{size / best[what] / 1e9:.2f}",
        }
        for what, values in spent.items()
    ]
    ratio = best["switch"] / best["read"]
    print_table(f"LoRA of {size / 1e9:.2f} GB: {ratio:.2f} times reading it (goal {GOAL})", rows)
    result = {
        "ratio": round(ratio, 3),
        "bytes": size,
        **{what: round(s, 4) for what, s in best.items()},
    }
    print_json("lora", result)
    return result


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
