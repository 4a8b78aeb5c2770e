"""The adapter against the stock pipeline, on the demo weights."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.errors import JobCancelled, OutOfMemory
from core.pipelines import build, demo
from core.pipelines.device import detect
from core.pipelines.loading import out_of_memory
from core.pipelines.stock import ModelConfig, WanVideoPipeline, wan_video_vae
from core.pipelines.wan_video import WanVideo
from core.protocol import Stage
from tests.core.pipelines.demo_runs import (
    DEMO,
    FRAMES,
    SIZE,
    Frames,
    Watched,
    arguments,
    frames_by,
    picture,
)


@pytest.fixture(scope="module")
def stock(wan: WanVideo, config: Any) -> Any:
    """The same files, loaded and called without any of our code but the file format rows."""
    folder = config.models_dir / demo.FOLDER
    names = ("high_noise_model", "low_noise_model", "text_encoder", "vae")
    return WanVideoPipeline.from_pretrained(
        torch_dtype=next(wan._pipe.dit.parameters()).dtype,
        device=wan._device.kind,
        model_configs=[ModelConfig(path=str(folder / f"{name}.safetensors")) for name in names],
        tokenizer_config=ModelConfig(path=str(folder / "tokenizer")),
    )


def stock_frames(stock: Any, **changes: Any) -> Frames:
    given = arguments(**changes)
    given["switch_DiT_boundary"] = given.pop("switch_dit_boundary")
    video = stock(**given, progress_bar_cmd=lambda timesteps: timesteps)
    return np.stack([np.asarray(frame) for frame in video])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tiled": True},
        {"cfg_scale": 1.0, "num_inference_steps": 2},
        {"end_image": picture(1)},
        {"input_video": [picture(n) for n in range(FRAMES)], "denoising_strength": 0.7},
    ],
    ids=["plain", "tiled", "no guidance", "end image", "video to video"],
)
def test_frames_are_those_of_the_stock_pipeline(
    wan: WanVideo, stock: Any, watched: Watched, changes: dict[str, Any]
) -> None:
    ours = frames_by(wan, watched.run, **changes)
    assert ours.shape == (FRAMES, SIZE, SIZE, 3)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, stock_frames(stock, **changes))


def test_video_is_not_empty(usual_frames: Frames) -> None:
    assert usual_frames.std(axis=(1, 2, 3)).min() > 2
    assert not np.array_equal(usual_frames[0], usual_frames[-1])


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"seed": 8}, False),
        ({"prompt": "something else"}, False),
        ({"negative_prompt": "something else"}, False),
        ({"input_image": picture(5)}, False),
    ],
    ids=["same seed", "other seed", "other prompt", "other negative prompt", "other picture"],
)
def test_what_changes_the_frames(
    wan: WanVideo, watched: Watched, usual_frames: Frames, changes: dict[str, Any], same: bool
) -> None:
    assert np.array_equal(usual_frames, frames_by(wan, watched.run, **changes)) is same


@pytest.mark.parametrize(("boundary", "experts"), [(0.0, {"high"}), (1.01, {"low"})])
def test_high_and_low_expert_are_not_swapped(
    wan: WanVideo, watched: Watched, config: Any, boundary: float, experts: set[str]
) -> None:
    used = set()
    hooks = [
        expert.blocks[0].register_forward_pre_hook(lambda *_, name=name: used.add(name))
        for name, expert in (("high", wan._pipe.dit), ("low", wan._pipe.dit2))
    ]
    wan.denoise(watched.run, **arguments(switch_dit_boundary=boundary, num_inference_steps=2))
    for hook in hooks:
        hook.remove()
    assert used == experts
    on_disk = load_file(config.models_dir / demo.FOLDER / "high_noise_model.safetensors")
    in_memory = wan._pipe.dit.head.head.weight.detach().cpu().numpy()
    assert np.array_equal(in_memory, on_disk["head.head.weight"].astype(in_memory.dtype))


def test_progress_tells_each_step_and_stage(wan: WanVideo, watched: Watched) -> None:
    frames_by(wan, watched.run, tiled=True, input_image=picture(41))  # encoded for the first time
    stages = list(dict.fromkeys(event.stage for event in watched.events))
    assert stages == [Stage.ENCODING, Stage.DENOISING, Stage.DECODING]
    ends = {e.stage: (e.step, e.steps) for e in watched.events}
    assert ends[Stage.DENOISING] == (3, 3)
    assert ends[Stage.DECODING] == (4, 4)  # 2 x 2 tiles
    fractions = [event.fraction for event in watched.events]
    assert fractions == sorted(fractions)


def test_previews_are_small_pictures(wan: WanVideo, watched: Watched) -> None:
    wan.denoise(watched.run, **arguments())
    previews = [event.preview for event in watched.events if event.preview]
    assert previews
    assert all(p.startswith("data:image/jpeg;base64,") and len(p) <= 32_768 for p in previews)


def test_frames_come_before_all_are_decoded(wan: WanVideo, watched: Watched) -> None:
    latents = wan.denoise(watched.run, **arguments())
    frames = wan.decode(watched.run, latents, tiled=False, tile_size=(6, 6), tile_stride=(4, 4))
    next(frames)
    decoded = [e.step for e in watched.events if e.stage is Stage.DECODING]
    assert decoded == [0]
    assert len(list(frames)) == FRAMES - 1


def test_cancel_between_steps_ends_the_call(wan: WanVideo, watched: Watched) -> None:
    watched.cancel = lambda: any(e.stage is Stage.DENOISING and e.step for e in watched.events)
    with pytest.raises(JobCancelled):
        wan.denoise(watched.run, **arguments(num_inference_steps=50))
    assert watched.events[-1].step == 1


def test_cancel_inside_a_step_stops_at_the_next_block(wan: WanVideo, watched: Watched) -> None:
    seen: list[int] = []
    blocks = wan._pipe.dit.blocks
    hooks = [
        block.register_forward_pre_hook(lambda *_, index=index: seen.append(index))
        for index, block in enumerate(blocks)
    ]
    watched.cancel = lambda: len(seen) >= 3
    with pytest.raises(JobCancelled):
        wan.denoise(watched.run, **arguments())
    for hook in hooks:
        hook.remove()
    # The hooks of this test run before ours: the third block is seen, and not computed.
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("stage", [Stage.ENCODING, Stage.DECODING])
def test_cancel_while_tiles_are_worked_on(wan: WanVideo, watched: Watched, stage: Stage) -> None:
    watched.cancel = lambda: any(e.stage is stage and e.step == 0 for e in watched.events)
    with pytest.raises(JobCancelled):
        frames_by(wan, watched.run, tiled=True, input_image=picture(42))
    assert {e.step for e in watched.events if e.stage is stage} == {0}


def test_next_job_is_as_ever_after_a_cancel(
    wan: WanVideo, watched: Watched, config: Any, usual_frames: Frames
) -> None:
    broken = Watched(config)
    broken.cancel = lambda: any(e.stage is Stage.DENOISING for e in broken.events)
    with pytest.raises(JobCancelled):
        frames_by(wan, broken.run)
    wan.recover()
    assert np.array_equal(usual_frames, frames_by(wan, watched.run))


def test_every_hook_is_taken_off_again(wan: WanVideo, usual_frames: Frames) -> None:
    pipe = wan._pipe
    assert "decode" not in vars(pipe.vae)
    assert "step" not in vars(pipe.scheduler)
    assert wan_video_vae.tqdm.__module__.startswith("tqdm")
    assert not any(module._forward_pre_hooks for module in pipe.modules())


def test_decoder_keeps_no_feature_maps(wan: WanVideo, usual_frames: Frames) -> None:
    assert all(kept is None for kept in wan._pipe.vae.model._feat_map)


def test_memory_errors_say_what_to_do() -> None:
    with pytest.raises(OutOfMemory, match="smaller size"), out_of_memory("testing"):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="another"), out_of_memory("testing"):
        raise RuntimeError("another error")


def test_provenance_names_files_and_versions(wan: WanVideo) -> None:
    told = wan.provenance
    assert [file["role"] for file in told["files"]][:2] == ["high", "low"]
    assert all(len(file["sha256"]) == 64 for file in told["files"])
    assert {"diffbox", "diffsynth", "torch", "python"} <= told["versions"].keys()
    assert (told["model"], told["attention"]) == ("wan-demo", "torch_sdpa")


def test_released_pipeline_holds_no_weights(config: Any, watched: Watched) -> None:
    adapter = build(DEMO, watched.run, config=config, device=detect())
    kept = weakref.ref(adapter._pipe.dit.blocks[0])
    adapter.release()
    assert kept() is None
