"""DIFFBOX_COMPILE: the same video nearly, cancel within a step, a cache for the next process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import CoreConfig
from core.errors import ConfigError
from core.pipelines.compiling import compile_blocks
from core.pipelines.loading import Loaded
from core.pipelines.placement import Placement


def told(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.pipelines.compiled_run", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++, which is not here")
@pytest.mark.timeout(400)  # the first graph takes up to a minute on a busy machine
def test_a_compiled_pipeline(tmp_path: Path) -> None:
    first = told(tmp_path)
    assert first["error"] < 1e-5
    assert first["provenance"] is True
    assert first["cancelled"]
    assert first["again"]
    assert first["graphs"] == first["graphs_again"] == 1
    assert (first["from_cache"], first["anew"]) == (0, 1)
    assert first["released"]
    assert any((tmp_path / "data" / "compiled").iterdir())
    second = told(tmp_path)
    assert (second["from_cache"], second["anew"]) == (1, 0)
    assert second["error"] == first["error"]


def test_weights_that_move_are_refused(config: CoreConfig) -> None:
    loaded = Loaded(pipe=None, placement=Placement(name="offload", vram_limit_gib=22))
    with pytest.raises(ConfigError, match="DIFFBOX_COMPILE=1 needs .* kept as offload"):
        compile_blocks(loaded, replace(config, compile=True))
