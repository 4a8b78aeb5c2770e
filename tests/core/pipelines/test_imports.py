"""The deferred import: nothing heavy at first, everything real on first use, the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("transformers", "torchvision", "pandas", "modelscope", "torch._dynamo", "torch._inductor")

_LOADED = f"""
import json, sys
import core.pipelines
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""

_FIRST_USE = """
import json, sys
import core.pipelines
import torch
import diffsynth.core.loader.config, diffsynth.core.data.unified_dataset as dataset
import diffsynth.models.wan_video_text_encoder as text
from diffsynth.core.vram import layers
attention = sys.modules["diffsynth.core.attention.attention"]
encoder = sys.modules["diffsynth.models.wan_video_image_encoder"]
found = {}
found["class"] = text.AutoTokenizer.from_pretrained.__self__.__name__
found["function"] = diffsynth.core.loader.config.snapshot_download.__code__.co_filename
found["module"] = dataset.pandas.DataFrame({"a": [1, 2]}).a.sum().item()
found["submodule"] = encoder.T.Compose.__name__
class Sub(text.AutoTokenizer): pass
found["base"] = Sub.__mro__[1].__name__
found["marked_before"] = hasattr(layers.AutoWrappedLinear.forward, "_torchdynamo_disable")
import transformers
found["real in sys.modules"] = transformers.AutoTokenizer is Sub.__mro__[1]
double = torch.compile(lambda x: 2 * x, backend="eager")
found["compiled"] = double(torch.ones(2)).sum().item()
marked = [owner.__name__ + "." + name for owner in vars(layers).values() if isinstance(owner, type)
    for name, value in vars(owner).items() if hasattr(value, "_torchdynamo_disable")]
found["marked_after"] = sorted(marked)
found["deferred compile"] = repr(attention.flex_attention_func)
mask = sys.modules["diffsynth.models.wan_animate_2_dit"].create_block_mask
found["flex"] = type(mask(lambda b, h, q, k: q >= k, 1, 1, 128, 128, device="cpu")).__name__
print(json.dumps(found))
"""

_STOCK = """
import json
import diffsynth.pipelines.wan_video
from diffsynth.core.vram import layers
print(json.dumps(sorted(owner.__name__ + "." + name for owner in vars(layers).values()
    if isinstance(owner, type) for name, value in vars(owner).items()
    if hasattr(value, "_torchdynamo_disable"))))
"""

_FRAMES = """
import hashlib, json, sys
from pathlib import Path
import torch
if sys.argv[2] == "stock":
    import diffsynth.pipelines.wan_video
torch.set_num_threads(1)
from core.pipelines import build
from core.pipelines.device import detect
from tests.core.pipelines.demo_runs import DEMO, Watched, folders, frames_by
config = folders(Path(sys.argv[1]))
run = Watched(config).run
wan = build(DEMO, run, config=config, device=detect())
print(json.dumps(hashlib.sha256(frames_by(wan, run, tiled=True).tobytes()).hexdigest()))
"""


def answer(code: str, *argv: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_pipelines_loads_nothing_heavy() -> None:
    assert answer(_LOADED) == []


@pytest.mark.slow
def test_first_use_gives_the_real_thing_and_dynamo_gets_its_marks() -> None:
    found = answer(_FIRST_USE)
    assert found.pop("marked_after") == answer(_STOCK)
    assert found.pop("deferred compile").startswith("<compiled ")
    assert "/modelscope/" in found.pop("function")
    assert found == {
        "class": "AutoTokenizer",
        "module": 3,
        "submodule": "Compose",
        "base": "AutoTokenizer",
        "marked_before": False,
        "real in sys.modules": True,
        "compiled": 4.0,
        "flex": "BlockMask",
    }


@pytest.mark.slow
def test_frames_are_the_same_with_the_stock_import(tmp_path: Path) -> None:
    assert answer(_FRAMES, str(tmp_path), "stock") == answer(_FRAMES, str(tmp_path), "ours")
