"""Camera, motion and TeaCache on the demo variants, against direct calls of the stock pipeline."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core import catalog
from core.config import CoreConfig
from core.engine import Engine
from core.errors import ModelMissing
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.stock import ModelConfig, WanVideoPipeline
from core.pipelines.wan_video import WanVideo
from core.protocol import Completed, Job
from core.workflows import workflow
from core.workflows.base import PipelineSpec
from core.workflows.camera import ORIGIN, pose
from tests.core.pipelines.demo_runs import (
    FRAMES,
    SIZE,
    Frames,
    Watched,
    arguments,
    frames_by,
    picture,
)

CAMERA: dict[str, Any] = {
    "camera_direction": "left",
    "camera_speed": 0.05,
    "camera_origin": pose(ORIGIN),
}
STILL: dict[str, Any] = {
    "input_image": None,
    "input_video": [picture()] * FRAMES,
    "denoising_strength": 0.9,
}
TEA: dict[str, Any] = {
    "tea_cache_l1_thresh": 0.4,
    "tea_cache_id": "Wan2.1-I2V-14B-480P",
    "num_inference_steps": 8,
}


def loaded(config: CoreConfig, model: str) -> WanVideo:
    spec = PipelineSpec(family="wan_video", model=model)
    adapter = build(spec, Watched(config).run, config=config, device=detect())
    assert isinstance(adapter, WanVideo)
    return adapter


def stock_of(config: CoreConfig, wan: WanVideo, model: str) -> Any:
    """The same files, loaded without our loader."""
    paths = {
        file.role: catalog.locate(file, config.models_dir) for file in catalog.model(model).files
    }
    folder = paths.pop("tokenizer")[0].parent
    return WanVideoPipeline.from_pretrained(
        torch_dtype=next(wan._pipe.dit.parameters()).dtype,
        device=wan._device.kind,
        model_configs=[ModelConfig(path=str(found[0])) for found in paths.values()],
        tokenizer_config=ModelConfig(path=str(folder)),
    )


def stock_frames(stock: Any, **given: Any) -> Frames:
    usual = arguments()
    usual["switch_DiT_boundary"] = usual.pop("switch_dit_boundary")
    video = stock(**{**usual, **given}, progress_bar_cmd=lambda timesteps: timesteps)
    return np.stack([np.asarray(frame) for frame in video])


@pytest.fixture(scope="module")
def camera(config: CoreConfig) -> WanVideo:
    return loaded(config, "wan-demo-camera")


@pytest.fixture(scope="module")
def single(config: CoreConfig) -> WanVideo:
    return loaded(config, "wan-demo-2.1")


@pytest.fixture(scope="module")
def speed(config: CoreConfig) -> WanVideo:
    return loaded(config, "wan-demo-speed")


# --- the numbers are the stock ones ---------------------------------------------------------------


def test_a_camera_that_moves_is_the_stock_one(
    camera: WanVideo, config: CoreConfig, watched: Watched
) -> None:
    stock = stock_of(config, camera, "wan-demo-camera")
    expected = stock_frames(
        stock,
        camera_control_direction="LeftUp",
        camera_control_speed=0.05,
        camera_control_origin=pose(ORIGIN),
    )
    changes = {**CAMERA, "camera_direction": "left_up"}
    assert np.array_equal(frames_by(camera, watched.run, **changes), expected)


def test_a_camera_goes_over_a_video_too(
    camera: WanVideo, config: CoreConfig, watched: Watched
) -> None:
    video = {"input_video": [picture(n) for n in range(FRAMES)], "denoising_strength": 0.7}
    stock = stock_of(config, camera, "wan-demo-camera")
    expected = stock_frames(
        stock, **video, camera_control_direction="Left", camera_control_speed=0.05
    )
    assert np.array_equal(frames_by(camera, watched.run, **CAMERA, **video), expected)


@pytest.mark.parametrize("bucket", [0, 100])
def test_motion_is_the_stock_pipelines(
    speed: WanVideo, config: CoreConfig, watched: Watched, bucket: int
) -> None:
    stock = stock_of(config, speed, "wan-demo-speed")
    expected = stock_frames(stock, **STILL, motion_bucket_id=bucket)
    found = frames_by(speed, watched.run, **STILL, motion_bucket_id=bucket)
    assert np.array_equal(found, expected)


def test_tea_cache_is_the_stock_pipelines(
    single: WanVideo, config: CoreConfig, watched: Watched
) -> None:
    stock = stock_of(config, single, "wan-demo-2.1")
    expected = stock_frames(
        stock,
        num_inference_steps=8,
        tea_cache_l1_thresh=0.4,
        tea_cache_model_id="Wan2.1-I2V-14B-480P",
    )
    assert np.array_equal(frames_by(single, watched.run, **TEA), expected)


# --- what they change -----------------------------------------------------------------------------


def test_each_direction_makes_another_video(
    camera: WanVideo, config: CoreConfig, watched: Watched
) -> None:
    made = [
        frames_by(camera, watched.run, **{**CAMERA, "camera_direction": direction})
        for direction in ("none", "left", "right", "in")
    ]
    for index, frames in enumerate(made):
        assert all(not np.array_equal(frames, other) for other in made[index + 1 :])


def test_a_camera_without_speed_is_one_that_stands_still(
    camera: WanVideo, watched: Watched
) -> None:
    still = frames_by(camera, watched.run, **{**CAMERA, "camera_direction": "none"})
    slow = frames_by(camera, watched.run, **{**CAMERA, "camera_speed": 0.0})
    moving = frames_by(camera, watched.run, **{**CAMERA, "camera_speed": 0.02})
    assert np.array_equal(still, slow)
    assert not np.array_equal(still, moving)


def test_a_model_of_wan_21_fun_stands_still_too(
    camera: WanVideo, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 32 channels are for the camera's picture input: the usual one has 4 more for a mask."""
    for dit in (camera._pipe.dit, camera._pipe.dit2):
        entry = torch.nn.Conv3d(32, dit.dim, dit.patch_size, dit.patch_size)
        monkeypatch.setattr(dit, "in_dim", 32)
        monkeypatch.setitem(dit._modules, "patch_embedding", entry)
    frames = frames_by(camera, watched.run, **{**CAMERA, "camera_direction": "none"})
    assert len(frames) == FRAMES
    with pytest.raises(RuntimeError, match="32 channels"):
        frames_by(camera, watched.run)


def test_another_lens_makes_another_video(camera: WanVideo, watched: Watched) -> None:
    wide = pose(ORIGIN.replace("0.532139961", "0.3"))
    usual = frames_by(camera, watched.run, **CAMERA)
    assert not np.array_equal(
        usual, frames_by(camera, watched.run, **{**CAMERA, "camera_origin": wide})
    )


def test_motion_changes_the_video_and_none_is_a_third_one(
    speed: WanVideo, watched: Watched
) -> None:
    plain, slow, fast = (
        frames_by(speed, watched.run, **STILL, **given)
        for given in ({}, {"motion_bucket_id": 0}, {"motion_bucket_id": 100})
    )
    assert not np.array_equal(slow, fast)
    assert not np.array_equal(plain, slow)


def test_tea_cache_leaves_steps_out(single: WanVideo, watched: Watched) -> None:
    asked = []
    hook = single._pipe.dit.blocks[0].register_forward_pre_hook(lambda *_: asked.append(1))
    frames_by(single, watched.run, **TEA)
    hook.remove()
    assert 0 < len(asked) < 2 * TEA["num_inference_steps"]


def test_both_sides_at_once_are_one_forward_and_the_same_video(
    wan: WanVideo, watched: Watched, usual_frames: Frames
) -> None:
    asked = []
    hook = wan._pipe.dit.blocks[0].register_forward_pre_hook(
        lambda _, inputs: asked.append(inputs[0].shape[0])
    )
    merged = frames_by(wan, watched.run, cfg_merge=True)
    hook.remove()
    assert set(asked) == {2}
    difference = np.abs(merged.astype(int) - usual_frames.astype(int))
    assert difference.max() <= 1


def test_a_single_model_has_no_second_expert_and_sees_the_picture(
    single: WanVideo, watched: Watched
) -> None:
    assert single._pipe.dit2 is None
    usual = frames_by(single, watched.run)
    assert not np.array_equal(usual, frames_by(single, watched.run, input_image=picture(5)))


def test_weights_without_a_camera_adapter_say_so(wan: WanVideo, watched: Watched) -> None:
    with pytest.raises(ModelMissing, match="no camera adapter"):
        wan.denoise(watched.run, **arguments(**CAMERA))


# --- whole jobs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(config: CoreConfig) -> Iterator[Engine]:
    device = detect()
    engine = Engine(
        load=partial(build, config=config, device=device),
        config=config,
        device=device,
        versions={},
    )
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("wan-demo", {"end_image": picture(1), "cfg_merge": True}),
        ("wan-demo-camera", {"camera_direction": "out", "camera_speed": 0.02, "step_cache": 1.0}),
        ("wan-demo-camera", {}),
        ("wan-demo-2.1", {"tea_cache_l1_thresh": 0.2}),
        ("wan-demo-speed", {"motion_bucket_id": 30, "denoising_strength": 0.7}),
    ],
)
def test_a_job_with_what_only_its_model_can_do_makes_a_video(
    engine: Engine, model: str, given: dict[str, Any]
) -> None:
    files = {
        name: data_uri(value) if isinstance(value, Image.Image) else value
        for name, value in given.items()
    }
    raw = {
        **{"prompt": "a cat", "input_image": data_uri(picture()), "model": model, "seed": 1},
        **{"width": SIZE, "height": SIZE, "num_frames": 5, "num_inference_steps": 6},
        "cfg_scale": 2.0,
    }
    params = workflow("i2v").parse({**raw, **files}).model_dump(mode="json")
    done = engine.run(Job(workflow="i2v", params=params), lambda event: None, lambda: False)
    assert isinstance(done, Completed), done
    assert done.artifacts[0].frames == 5
    assert (done.metrics.get("steps_skipped", 0) > 0) is ("step_cache" in given)


def data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
