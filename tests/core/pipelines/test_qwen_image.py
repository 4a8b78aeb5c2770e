"""The Qwen adapter against the stock pipeline, on the demo weights."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from core.controlnets import ControlnetShelf
from core.errors import JobCancelled, ModelMissing
from core.pipelines import build, demo_qwen, qwen_text
from core.pipelines.device import detect
from core.pipelines.qwen_image import QwenImage
from core.pipelines.stock import FlowMatchScheduler, ModelConfig
from core.pipelines.stock_qwen import ControlNetInput, QwenImagePipeline
from core.protocol import Stage
from tests.core.pipelines.demo_runs import Watched
from tests.core.pipelines.qwen_runs import (
    DEMO,
    SIDE,
    Pixels,
    arguments,
    edited,
    hint,
    left_half,
    spots,
)

KINDS = ("canny", "depth", "inpaint")
CELLS = left_half((SIDE // 8, SIDE // 8))
LIGHTNING = {"schedule": "lightning", "num_inference_steps": 4, "cfg_scale": 1.0}


@pytest.fixture(scope="module")
def stock(qwen: QwenImage, config: Any) -> Any:
    """The same files with all controlnets, loaded and called without our adapter."""
    folder = config.models_dir / demo_qwen.FOLDER
    names = ["transformer", "text_encoder", "vae", *(f"controlnet_{kind}" for kind in KINDS)]
    pipe = QwenImagePipeline.from_pretrained(
        torch_dtype=qwen._pipe.torch_dtype,
        device=qwen._device.kind,
        model_configs=[ModelConfig(path=str(folder / f"{name}.safetensors")) for name in names],
        tokenizer_config=ModelConfig(path=str(folder / "tokenizer")),
        processor_config=ModelConfig(path=str(folder / "processor")),
    )
    qwen_text.as_trained(pipe.text_encoder)
    return pipe


def stock_edit(stock: Any, control: Any = None, **changes: Any) -> Pixels:
    given = arguments(**changes)
    for name in ("hint", "schedule"):
        given.pop(name)
    picture = stock(
        **given,
        edit_image_auto_resize=False,
        blockwise_controlnet_inputs=control and [control],
        progress_bar_cmd=lambda timesteps: timesteps,
    )
    return np.asarray(picture)


@pytest.fixture
def with_controlnet(
    qwen: QwenImage, watched: Watched, config: Any
) -> Callable[[str | None], QwenImage]:
    def put(kind: str | None) -> QwenImage:
        use = kind and ControlnetShelf(config).use(kind, DEMO.model)
        qwen.use_controlnet(use or None, watched.run)
        return qwen

    return put


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tiled": True},
        {"cfg_scale": 1.0, "num_inference_steps": 2},
        {"edit_image": [spots(), spots(1, (96, 32)), spots(2)]},
        {"zero_cond_t": False, "exponential_shift_mu": 1.5},
        {"input_image": spots(), "denoising_strength": 0.6},
        {"input_image": spots(), "inpaint_mask": CELLS},
    ],
    ids=["plain", "tiled", "no guidance", "three", "2509", "half way", "inpaint"],
)
def test_the_picture_is_that_of_the_stock_pipeline(
    qwen: QwenImage, stock: Any, watched: Watched, changes: dict[str, Any]
) -> None:
    ours = edited(qwen, watched.run, **changes)
    assert ours.shape == (SIDE, SIDE, 3)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, stock_edit(stock, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_controlnet_it_is_that_of_the_stock_pipeline(
    with_controlnet: Callable[[str | None], QwenImage], stock: Any, watched: Watched, kind: str
) -> None:
    mask = left_half() if kind == "inpaint" else None
    given = {"scale": 0.7, "mask": mask, "start": 0.0, "end": 0.5}
    ours = edited(with_controlnet(kind), watched.run, hint=hint(**given))
    control = ControlNetInput(
        controlnet_id=KINDS.index(kind),
        scale=0.7,
        start=1.0,
        end=0.5,
        image=spots(9),
        inpaint_mask=mask and mask.convert("RGB"),
    )
    assert np.array_equal(ours, stock_edit(stock, control))


def test_the_picture_is_not_empty(usual_edit: Pixels) -> None:
    assert usual_edit.std() > 5


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"seed": 8}, False),
        ({"prompt": "something else"}, False),
        ({"negative_prompt": "something else"}, False),
        ({"edit_image": [spots(5)]}, False),
        ({"zero_cond_t": False}, False),
        ({"hint": None, "schedule": "lightning"}, False),
    ],
    ids=["nothing", "seed", "prompt", "negative prompt", "picture", "variant", "schedule"],
)
def test_what_changes_the_picture(
    qwen: QwenImage, watched: Watched, usual_edit: Pixels, changes: dict[str, Any], same: bool
) -> None:
    assert np.array_equal(usual_edit, edited(qwen, watched.run, **changes)) is same


def test_the_order_of_the_pictures_counts(qwen: QwenImage, watched: Watched) -> None:
    one, other = spots(1), spots(2)
    first = edited(qwen, watched.run, edit_image=[one, other])
    swapped = edited(qwen, watched.run, edit_image=[other, one])
    assert not np.array_equal(first, swapped)
    near = [abs(first - np.asarray(picture, dtype=float)).mean() for picture in (one, other)]
    assert near[0] < near[1]  # the demo follows the first one


@pytest.mark.parametrize("kind", KINDS)
def test_a_controlnet_counts_by_its_kind_scale_and_span(
    with_controlnet: Callable[[str | None], QwenImage],
    watched: Watched,
    usual_edit: Pixels,
    kind: str,
) -> None:
    qwen = with_controlnet(kind)
    mask = left_half() if kind == "inpaint" else None
    full = edited(qwen, watched.run, hint=hint(mask=mask))
    pictures = [
        full,
        usual_edit,
        edited(qwen, watched.run, hint=hint(mask=mask, scale=0.5)),
        edited(qwen, watched.run, hint=hint(mask=mask, end=0.4)),
        edited(qwen, watched.run, hint=hint(mask=mask, start=0.4)),
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    without = edited(qwen, watched.run, hint=hint(mask=mask, scale=0.0))
    assert np.array_equal(without, usual_edit)


def test_after_a_controlnet_everything_is_as_before(
    with_controlnet: Callable[[str | None], QwenImage], watched: Watched, usual_edit: Pixels
) -> None:
    qwen = with_controlnet("canny")
    edited(qwen, watched.run, hint=hint())
    assert np.array_equal(edited(qwen, watched.run), usual_edit)
    bare = with_controlnet(None)._pipe
    assert np.array_equal(edited(qwen, watched.run), usual_edit)
    assert not any(name.startswith("blockwise") for name, _ in bare.named_parameters())


def test_the_same_controlnet_is_loaded_once(
    with_controlnet: Callable[[str | None], QwenImage], watched: Watched
) -> None:
    first = with_controlnet("canny")._pipe.blockwise_controlnet
    told = len(watched.events)
    assert with_controlnet("canny")._pipe.blockwise_controlnet is first
    assert len(watched.events) == told
    assert with_controlnet("depth")._pipe.blockwise_controlnet is not first
    assert watched.events[-1].stage is Stage.LOADING


def test_progress_tells_each_step_and_tile(qwen: QwenImage, watched: Watched) -> None:
    watched.run.enter(Stage.ENCODING)
    edited(qwen, watched.run, tiled=True, tile_size=(4, 4), tile_stride=(2, 2))
    stages = list(dict.fromkeys(event.stage for event in watched.events))
    assert stages == [Stage.ENCODING, Stage.DENOISING, Stage.DECODING]
    ends = {e.stage: (e.step, e.steps) for e in watched.events}
    assert ends[Stage.DENOISING] == (3, 3)
    assert ends[Stage.DECODING] == (9, 9)  # 3 x 3 tiles
    fractions = [event.fraction for event in watched.events]
    assert fractions == sorted(fractions)


def test_previews_are_small_pictures(qwen: QwenImage, watched: Watched) -> None:
    edited(qwen, watched.run)
    previews = [event.preview for event in watched.events if event.preview]
    assert previews
    assert all(p.startswith("data:image/jpeg;base64,") and len(p) <= 32_768 for p in previews)


def test_cancel_between_steps_ends_the_call(qwen: QwenImage, watched: Watched) -> None:
    watched.cancel = lambda: any(e.stage is Stage.DENOISING and e.step for e in watched.events)
    with pytest.raises(JobCancelled):
        edited(qwen, watched.run, num_inference_steps=50)
    assert watched.events[-1].step == 1


_new = count()


@pytest.mark.parametrize(
    "part",
    [
        lambda pipe: pipe.dit.transformer_blocks,
        lambda pipe: pipe.text_encoder.model.language_model.layers,
        lambda pipe: pipe.text_encoder.model.visual.blocks,
        lambda pipe: pipe.vae.encoder.down_blocks,
        lambda pipe: pipe.vae.decoder.up_blocks,
    ],
    ids=["transformer", "text", "vision", "encoder", "decoder"],
)
def test_cancel_stops_at_the_next_block(
    qwen: QwenImage, watched: Watched, part: Callable[[Any], Any]
) -> None:
    seen: list[int] = []
    computed: list[int] = []
    hooks = []
    for index, block in enumerate(part(qwen._pipe)):
        hooks += [
            block.register_forward_pre_hook(lambda *_, index=index: seen.append(index)),
            block.register_forward_hook(lambda *_, index=index: computed.append(index)),
        ]
    watched.cancel = lambda: len(seen) >= 2
    # What was encoded before is not encoded again: something new for each part.
    new = next(_new)
    with pytest.raises(JobCancelled):
        edited(qwen, watched.run, prompt=f"cancel {new}", edit_image=[spots(1000 + new)])
    for handle in hooks:
        handle.remove()
    # The hooks of this test run before ours: the second block is seen, and not computed.
    assert (seen, computed) == ([0, 1], [0])


def test_next_job_is_as_ever_after_a_cancel(
    qwen: QwenImage, watched: Watched, config: Any, usual_edit: Pixels
) -> None:
    broken = Watched(config)
    broken.cancel = lambda: any(e.stage is Stage.DENOISING for e in broken.events)
    with pytest.raises(JobCancelled):
        edited(qwen, broken.run, **LIGHTNING)
    qwen.recover()
    assert np.array_equal(usual_edit, edited(qwen, watched.run))


def test_the_scheduler_is_put_back_whatever_happens(
    qwen: QwenImage, watched: Watched, usual_edit: Pixels
) -> None:
    before = qwen._pipe.scheduler
    edited(qwen, watched.run, **LIGHTNING)
    assert qwen._pipe.scheduler is before

    def fail(*_: Any) -> None:
        assert qwen._pipe.scheduler is not before
        raise RuntimeError("inside a step")

    handle = qwen._pipe.dit.transformer_blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="inside a step"):
        edited(qwen, watched.run, **LIGHTNING)
    handle.remove()
    assert qwen._pipe.scheduler is before
    assert np.array_equal(usual_edit, edited(qwen, watched.run))


def test_lightning_has_its_own_noise_levels(qwen: QwenImage, watched: Watched) -> None:
    levels: list[float] = []

    def note(_: Any, given: Any) -> None:
        levels.append(round(float(given[0][0]), 3))

    handle = qwen._pipe.dit.time_text_embed.register_forward_pre_hook(note)
    edited(qwen, watched.run, **LIGHTNING)
    handle.remove()
    assert levels == [1.0, 0.9, 0.75, 0.5]


@pytest.mark.parametrize("schedule", ["regular", "lightning"])
@pytest.mark.parametrize("steps", [2, 3, 200])
@pytest.mark.parametrize("strength", [0.01, 0.5, 1.0])
def test_noise_levels_fall_from_two_steps_on(schedule: str, steps: int, strength: float) -> None:
    name = "Qwen-Image" + ("-Lightning" if schedule == "lightning" else "")
    scheduler = FlowMatchScheduler(name)
    scheduler.set_timesteps(steps, denoising_strength=strength, dynamic_shift_len=4096)
    assert torch.isfinite(scheduler.sigmas).all()
    assert (scheduler.sigmas.diff() < 0).all()
    assert 0 < scheduler.sigmas[-1] < scheduler.sigmas[0] <= 1


def test_every_hook_is_taken_off_again(qwen: QwenImage, usual_edit: Pixels) -> None:
    pipe = qwen._pipe
    assert "decode" not in vars(pipe.vae)
    assert "step" not in vars(pipe.scheduler)
    hooked = [module for module in pipe.modules() if module._forward_pre_hooks]
    assert hooked == [pipe.text_encoder]  # qwen_text.as_trained


def test_provenance_names_files_and_versions(qwen: QwenImage) -> None:
    told = qwen.provenance
    roles = [file["role"] for file in told["files"]]
    assert roles[:3] == ["transformer", "text_encoder", "vae"]
    assert {"tokenizer", "processor"} <= set(roles)
    assert all(len(file["sha256"]) == 64 for file in told["files"])
    assert (told["model"], told["attention"]) == ("qwen-demo", "torch_sdpa")


@pytest.mark.parametrize("asked", range(8))
def test_a_cancel_while_loading_ends_it(config: Any, watched: Watched, asked: int) -> None:
    # Asked at the start, after each of 3 headers, before each of 3 files and a folder.
    times = itertools.count()
    watched.cancel = lambda: next(times) >= asked
    with pytest.raises(JobCancelled):
        build(DEMO, watched.run, config=config, device=detect())
    assert next(times) == asked + 1


def test_a_file_of_something_else_is_told(
    config: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_qwen, "ensure", lambda models_dir: None)
    folder = config.models_dir / demo_qwen.FOLDER
    vae = folder / "vae.safetensors"
    whole = vae.read_bytes()
    try:
        vae.write_bytes((folder / "controlnet_depth.safetensors").read_bytes())
        with pytest.raises(ModelMissing, match=r"hold something else: .*vae\.safetensors \(vae\)"):
            build(DEMO, watched.run, config=config, device=detect())
    finally:
        vae.write_bytes(whole)


def test_released_pipeline_holds_no_weights(config: Any, watched: Watched) -> None:
    adapter = build(DEMO, watched.run, config=config, device=detect())
    assert isinstance(adapter, QwenImage)
    adapter.use_controlnet(ControlnetShelf(config).use("canny", DEMO.model), watched.run)
    kept = [
        weakref.ref(adapter._pipe.dit.transformer_blocks[0]),
        weakref.ref(adapter._pipe.blockwise_controlnet.models[0]),
    ]
    adapter.release()
    assert [ref() for ref in kept] == [None, None]
