"""Whole jobs with LoRAs on the demo: told in the file, gone for the next job, refused in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.config import CoreConfig
from core.engine import Engine
from core.lora import LoraUse
from core.media.embed import read_embedded
from core.protocol import Completed, Failed, Job, TerminalEvent
from core.run import Run
from core.warm import LoadedPipeline
from core.workflows import workflow
from core.workflows.base import PipelineSpec
from tests.core.pipelines.qwen_runs import Box, spots
from tests.support.engine import DEVICE
from tests.support.loras import kohya, peft, unet, wan_linears, write_header


def end(box: Box, **raw: Any) -> TerminalEvent:
    """How an i2v job with these params ends."""
    usual = {"prompt": "a boat", "input_image": box.upload(spots()), "seed": 7}
    small = {"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 2}
    params = workflow("i2v").parse({**usual, **small, **raw})
    job = Job(workflow="i2v", params=params.model_dump(mode="json"))
    return box.engine.run(job, lambda _: None, lambda: False)


def made(box: Box, **raw: Any) -> Path:
    """The mp4 of a job that must complete."""
    done = end(box, **raw)
    assert isinstance(done, Completed), done
    return box.config.outputs_dir / done.artifacts[0].url


def poster(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path.with_suffix(".webp")) as picture:
        return np.asarray(picture).astype(int)


def failure(box: Box, **raw: Any) -> Failed:
    failed = end(box, **raw)
    assert isinstance(failed, Failed), failed
    return failed


def test_a_job_with_loras_is_seen_told_and_gone_afterwards(box: Box) -> None:
    before = made(box)
    with_it = made(box, lora=["wan-demo-style", "high=wan-demo-svi,high_strength=0.5"])
    after = made(box)

    told = read_embedded(with_it)
    assert told
    assert [(row["name"], row["expert"], row["strength"]) for row in told["loras"]] == [
        ("wan-demo-style", "high", 1.0),
        ("wan-demo-style", "low", 1.0),
        ("wan-demo-svi", "high", 0.5),
    ]
    assert all(len(row["sha256"]) == 64 for row in told["loras"])
    assert told["params"]["lora"][0]["high"] == "wan-demo-style"
    assert np.abs(poster(with_it) - poster(before)).mean() > 5
    assert np.array_equal(poster(after), poster(before))
    assert "loras" not in (read_embedded(after) or {})


def test_a_preset_puts_its_pair_on(box: Box) -> None:
    told = read_embedded(made(box, preset="i2v-demo-lightning"))
    assert told
    assert told["params"]["preset"] == "i2v-demo-lightning"
    assert {row["name"] for row in told["loras"]} == {"wan-demo-lightning"}


def test_svi_puts_its_own_pair_on_and_the_next_job_is_without(box: Box) -> None:
    before = poster(made(box))
    recipe = workflow("svi")
    small = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 7}
    raw = {"prompts": ["a boat"], "input_image": box.upload(spots()), "num_clips": 1, **small}
    params = recipe.parse(raw)
    job = Job(workflow="svi", params=params.model_dump(mode="json"), plan=recipe.plan(params))
    done = box.engine.run(job, lambda _: None, lambda: False)
    assert isinstance(done, Completed), done
    told = read_embedded(box.config.outputs_dir / done.artifacts[0].url)
    assert told
    assert [(row["name"], row["expert"]) for row in told["loras"]] == [
        ("wan-demo-svi", "high"),
        ("wan-demo-svi", "low"),
    ]
    assert np.array_equal(poster(made(box)), before)


def test_a_picture_tells_its_loras_too(box: Box) -> None:
    raw = {"edit_images": [box.upload(spots())], "lora": ["qwen-demo-style:0.5"]}
    plain, styled = box.pixels(edit_images=raw["edit_images"]), box.pixels(**raw)
    assert np.abs(styled.astype(int) - plain).mean() > 2
    assert np.array_equal(box.pixels(edit_images=raw["edit_images"]), plain)


def test_a_lora_for_another_model_fails_at_its_parameter(box: Box) -> None:
    made(box)  # so that the demo's files are there
    folder = box.config.models_dir / "lora"
    write_header(folder / "xl.safetensors", kohya(unet(2048)))
    write_header(folder / "wan14b.safetensors", peft(wan_linears(5120, 13824, 2)))
    failed = failure(box, lora=["high=xl.safetensors"])
    assert (failed.code, failed.field) == ("invalid_params", "lora")
    assert "seems to be for SDXL" in failed.message
    assert "Wan 14B" in failure(box, lora=["low=wan14b.safetensors"]).message
    failed = failure(box, lora=["low=nowhere.safetensors"])
    assert (failed.code, failed.field) == ("model_missing", "lora")


class Kept:
    """A pipeline that remembers which LoRAs it was given."""

    def __init__(self) -> None:
        self.provenance: dict[str, Any] = {}
        self.loras: list[str] = []

    def use_loras(self, uses: Any, run: Run) -> None:
        self.loras = [use.name for use in uses]
        assert all(isinstance(use, LoraUse) for use in uses)

    def measured(self) -> dict[str, Any]:
        return {}

    def release(self) -> None: ...

    def recover(self) -> None: ...


@pytest.fixture
def loads() -> list[PipelineSpec]:
    return []


@pytest.fixture
def real(tmp_path: Path, loads: list[PipelineSpec]) -> Box:
    """An engine with headers of the real model's files, which must not come to loading."""

    def load(spec: PipelineSpec, run: Run) -> LoadedPipeline:
        loads.append(spec)
        return Kept()

    linears = wan_linears(5120, 13824, 1)
    for expert in ("high", "low"):
        folder = tmp_path / f"models/base/Wan-AI/Wan2.2-I2V-A14B/{expert}_noise_model"
        weights = {f"{module}.weight": shape for module, shape in linears.items()}
        write_header(folder / "diffusion_pytorch_model.safetensors", weights)
    config = CoreConfig(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        outputs_dir=tmp_path / "outputs",
    )
    return Box(Engine(load=load, config=config, device=DEVICE, versions={}), config)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("high=xl.safetensors", "seems to be for SDXL"),
        ("high=nowhere.safetensors", "there is no file"),
        ("wan2.2-lightning", "for the low noise expert"),
    ],
)
def test_on_a_real_model_it_fails_before_anything_is_loaded(
    real: Box, loads: list[PipelineSpec], lora: str, said: str
) -> None:
    models = real.config.models_dir
    write_header(models / "lora/xl.safetensors", kohya(unet(2048)))
    name = "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022.safetensors"
    pair = peft(wan_linears(5120, 13824, 1), prefix="diffusion_model.")
    write_header(models / "base/lightx2v/Wan2.2-Distill-Loras" / name, pair)
    failed = failure(real, model="wan2.2-i2v-a14b", lora=[lora])
    assert said in failed.message
    assert failed.field == "lora"
    assert loads == []
