"""Loading: what is missing or damaged, progress, and cancel between files."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import catalog
from core.config import CoreConfig
from core.errors import ConfigError, JobCancelled, ModelMissing
from core.pipelines import demo, stock
from core.pipelines.device import detect
from core.pipelines.loading import load_wan
from core.protocol import Stage
from tests.core.pipelines.demo_runs import Watched, folders

REAL = replace(catalog.model("wan-demo"), id="real", title="Real weights", demo=False)


@pytest.fixture
def copied(config: CoreConfig, wan: object, tmp_path: Path) -> CoreConfig:
    """Its own copy of the demo files, in the folder of a model that is not the demo."""
    own = folders(tmp_path)
    shutil.copytree(config.models_dir / demo.FOLDER, own.models_dir / demo.FOLDER)
    return own


def load(config: CoreConfig, watched: Watched) -> Any:
    return load_wan(REAL, watched.run, config=config, device=detect()).pipe


def test_missing_file_is_named_with_where_it_was_looked_for(copied: CoreConfig) -> None:
    (copied.models_dir / demo.FOLDER / "low_noise_model.safetensors").unlink()
    with pytest.raises(ModelMissing) as error:
        load(copied, Watched(copied))
    assert "low_noise_model.safetensors (low)" in error.value.message
    assert str(copied.models_dir) in error.value.message
    assert error.value.retryable


def test_truncated_file_is_refused_before_anything_is_loaded(copied: CoreConfig) -> None:
    path = copied.models_dir / demo.FOLDER / "vae.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelMissing, match=r"truncated: \d+ bytes expected, \d+ found"):
        load(copied, Watched(copied))


def test_file_that_holds_another_model_is_refused(copied: CoreConfig) -> None:
    folder = copied.models_dir / demo.FOLDER
    shutil.copy(folder / "text_encoder.safetensors", folder / "vae.safetensors")
    with pytest.raises(ModelMissing, match=r"vae\.safetensors \(vae\)"):
        load(copied, Watched(copied))


def test_unknown_model_in_a_file_is_refused(copied: CoreConfig) -> None:
    path = copied.models_dir / demo.FOLDER / "vae.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelMissing, match=r"vae\.safetensors"):
        load(copied, Watched(copied))


def test_loading_tells_progress_file_by_file(copied: CoreConfig) -> None:
    watched = Watched(copied)
    pipe = load(copied, watched)
    assert pipe.dit is not None
    assert pipe.dit2 is not None
    first, last = watched.events[0], watched.events[-1]
    assert {event.stage for event in watched.events} == {Stage.LOADING}
    assert (first.step, first.steps) == (0, 8)
    assert last.step == last.steps


def test_loading_stops_between_two_files_when_cancelled(copied: CoreConfig) -> None:
    watched = Watched(copied)
    asked = itertools.count(1)
    # Entering, then four headers, then the first file: stop before the second.
    watched.cancel = lambda: next(asked) > 6
    with pytest.raises(JobCancelled):
        load(copied, watched)


def test_diffsynth_with_other_internals_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stock.check_hooks()
    monkeypatch.delattr(stock.wan_video_vae, "tqdm")
    with pytest.raises(
        ConfigError, match=r"wan_video_vae\.tqdm changed; install diffsynth==2\.1\.12"
    ):
        stock.check_hooks()
