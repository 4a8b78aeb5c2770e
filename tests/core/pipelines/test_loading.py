"""Loading: where weights are kept, what is missing or damaged, cancel between files."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core import catalog
from core.config import CoreConfig
from core.errors import ConfigError, JobCancelled, ModelMissing
from core.pipelines import demo, stock
from core.pipelines.device import detect
from core.pipelines.loading import VramPolicy, load_wan, vram_policy
from core.protocol import Device, Stage
from tests.core.pipelines.demo_runs import Watched, folders

GIB = 1024**3
WAN22_BYTES = 69_000_000_000
"""Two experts of 14.3 B parameters, a text encoder of 5.7 B, a VAE, in bfloat16."""


def gpu(gib: float) -> Device:
    return Device(
        kind="cuda", name="gpu", memory_total_bytes=int(gib * GIB), memory_free_bytes=int(gib * GIB)
    )


@pytest.mark.parametrize(
    ("gpu_gib", "host_gib", "expected"),
    [
        (139.7, 128, VramPolicy(name="resident")),
        (79.1, 128, VramPolicy(name="resident")),
        (47.5, 128, VramPolicy(name="cpu_offload", vram_limit_gib=45.5)),
        (23.6, 80, VramPolicy(name="cpu_offload", vram_limit_gib=21.6)),
        (23.6, 64, VramPolicy(name="disk_offload", vram_limit_gib=21.6)),
    ],
)
def test_weights_wait_where_there_is_room(
    gpu_gib: float, host_gib: int, expected: VramPolicy
) -> None:
    found = vram_policy(gpu(gpu_gib), weights_bytes=WAN22_BYTES, host_free_bytes=host_gib * GIB)
    assert (found.name, found.vram_limit_gib) == (
        expected.name,
        expected.vram_limit_gib and pytest.approx(expected.vram_limit_gib),
    )


def test_processor_and_small_models_need_no_vram_management() -> None:
    cpu = replace_kind(gpu(8))
    assert vram_policy(cpu, weights_bytes=WAN22_BYTES, host_free_bytes=0).name == "resident"
    assert vram_policy(gpu(16), weights_bytes=GIB, host_free_bytes=0).name == "resident"
    assert VramPolicy(name="resident").fields(torch.bfloat16) == {}


def replace_kind(device: Device) -> Device:
    return device.model_copy(update={"kind": "cpu"})


@pytest.mark.parametrize("name", ["cpu_offload", "disk_offload"])
def test_offloading_turns_diffsynths_vram_management_on(name: Any) -> None:
    fields = VramPolicy(name=name, vram_limit_gib=20).fields(torch.bfloat16)
    assert fields["offload_device"] == name.removesuffix("_offload")
    assert fields["offload_dtype"] is not None
    assert (fields["computation_device"], fields["preparing_device"]) == ("cuda", "cuda")


REAL = replace(catalog.model("wan-demo"), id="real", title="Real weights", demo=False)


@pytest.fixture
def copied(config: CoreConfig, wan: object, tmp_path: Path) -> CoreConfig:
    """Its own copy of the demo files, in the folder of a model that is not the demo."""
    own = folders(tmp_path)
    shutil.copytree(config.models_dir / demo.FOLDER, own.models_dir / demo.FOLDER)
    return own


def load(config: CoreConfig, watched: Watched) -> Any:
    return load_wan(REAL, watched.run, models_dir=config.models_dir, device=detect())


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
