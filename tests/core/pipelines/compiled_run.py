"""Runs of a compiled demo in a process of its own; prints what happened as JSON.

python -m tests.core.pipelines.compiled_run <folder>
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.config import CoreConfig
from core.errors import JobCancelled
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.wan_video import WanVideo
from tests.core.pipelines.demo_runs import DEMO, Watched, arguments, folders


def latents(wan: WanVideo, config: CoreConfig) -> torch.Tensor:
    return wan.denoise(Watched(config).run, **arguments(num_inference_steps=2))


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def is_cancelled(wan: WanVideo, config: CoreConfig) -> bool:
    """Whether a cancel between two blocks of the first step ends the run."""
    watched = Watched(config)
    asked = itertools.count(1)
    watched.cancel = lambda: bool(watched.events) and next(asked) > 4
    try:
        wan.denoise(watched.run, **arguments(num_inference_steps=2))
    except JobCancelled:
        return bool(watched.events[-1].step == 0)
    return False


def main(folder: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    config = folders(Path(folder))
    device = detect()
    plain = build(DEMO, Watched(config).run, config=config, device=device)
    compiling = replace(config, compile=True)
    wan = build(DEMO, Watched(config).run, config=compiling, device=device)
    assert isinstance(plain, WanVideo)
    assert isinstance(wan, WanVideo)
    expected = latents(plain, config)
    bare = latents(wan, config)
    told: dict[str, Any] = {"graphs": graphs(), "provenance": wan.provenance["compiled"]}
    told["error"] = float((bare - expected).norm() / expected.norm())
    told["cancelled"] = is_cancelled(wan, config)
    told["again"] = torch.equal(latents(wan, config), bare)
    told["graphs_again"] = graphs()
    counted = torch._dynamo.utils.counters["inductor"]
    told["from_cache"] = counted["fxgraph_cache_hit"]
    told["anew"] = counted["fxgraph_cache_miss"]
    model = weakref.ref(wan._pipe.dit)
    wan.release()
    gc.collect()
    told["released"] = model() is None
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
