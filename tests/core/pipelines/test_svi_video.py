"""SVI 2.0 Pro on the stock pipeline, against a plain loop that follows the published algorithm."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import JobCancelled
from core.pipelines.stock import WanVideoUnit_ImageEmbedderVAE, image_embedder_index
from core.pipelines.svi_video import SviClips
from core.pipelines.wan_video import WanVideo
from core.protocol import Stage
from tests.core.pipelines.demo_runs import SIZE, Watched, arguments, picture

PROMPTS = ("a cat walks", "it sits down", "it sleeps")
FRAMES = 21
LATENTS = (FRAMES - 1) // 4 + 1


def inputs(**changes: Any) -> Any:
    return arguments(num_frames=FRAMES, **changes)


def three_clips(wan: WanVideo, watched: Watched, slots: int, **changes: Any) -> list[torch.Tensor]:
    clips = wan.svi(watched.run, motion_slots=slots, inputs=inputs(**changes))
    watched.run.enter(Stage.ENCODING)
    return [clips.denoise(prompt=p, seed=7 + 42 * i) for i, p in enumerate(PROMPTS)]


@torch.no_grad()
def published(pipe: Any, slots: int, *, steps: int, cfg: float, boundary: float) -> list[Any]:
    """Section A.2 of the reference, step by step, with none of the pipeline's units or `__call__`.

    Returns:
        the latents (1, 16, T, h, w) of each clip.
    """

    def embedded(prompt: str) -> torch.Tensor:
        ids, mask = pipe.tokenizer(prompt, return_mask=True, add_special_tokens=True)
        context: torch.Tensor = pipe.text_encoder(ids, mask)
        context[:, int(mask.gt(0).sum()) :] = 0
        return context

    pixels = pipe.preprocess_image(picture().resize((SIZE, SIZE)))[0][:, None]
    anchor = pipe.vae.encode([pixels], device="cpu", tiled=False)[0]
    negative = embedded("blurred")
    previous: torch.Tensor | None = None
    videos = []
    for number, prompt in enumerate(PROMPTS):
        latents = torch.zeros(16, LATENTS, SIZE // 8, SIZE // 8)
        latents[:, 0] = anchor[:, 0]
        if previous is not None:
            latents[:, 1 : slots + 1] = previous[:, -slots:]
        mask = torch.zeros(4, LATENTS, SIZE // 8, SIZE // 8)
        mask[:, 0] = 1
        y = torch.cat([mask, latents], 0)[None]
        generator = torch.Generator("cpu").manual_seed(7 + 42 * number)
        x = torch.randn((1, 16, LATENTS, SIZE // 8, SIZE // 8), generator=generator)
        pipe.scheduler.set_timesteps(steps, denoising_strength=1.0, shift=5.0)
        sigmas = [*pipe.scheduler.sigmas, torch.tensor(0.0)]
        context = embedded(prompt)
        for step, timestep in enumerate(pipe.scheduler.timesteps):
            dit = pipe.dit if float(timestep) >= boundary * 1000 else pipe.dit2
            given = {"latents": x, "timestep": timestep[None], "y": y}
            positive = pipe.model_fn(dit=dit, context=context, **given)
            unguided = pipe.model_fn(dit=dit, context=negative, **given)
            velocity = unguided + cfg * (positive - unguided)
            x = x + velocity * (sigmas[step + 1] - sigmas[step])
        previous = x[0]
        videos.append(x)
    return videos


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_three_clips_are_the_published_algorithm_bit_by_bit(
    wan: WanVideo, watched: Watched, slots: int
) -> None:
    ours = three_clips(wan, watched, slots)
    plain = published(wan._pipe, slots, steps=3, cfg=2.0, boundary=0.9)
    for number, (a, b) in enumerate(zip(ours, plain, strict=True)):
        assert torch.equal(a, b), f"clip {number} differs by {(a - b).abs().max()}"


def test_more_motion_latents_make_another_video(wan: WanVideo, watched: Watched) -> None:
    """So that the parity above does not hold for all M alike."""
    one, two = (three_clips(wan, watched, slots) for slots in (1, 2))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_the_anchor_is_encoded_once_and_frames_never(
    wan: WanVideo, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    encode = wan._pipe.vae.encode

    def counting(videos: Any, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(videos[0].shape))
        return encode(videos, *args, **kwargs)

    monkeypatch.setattr(wan._pipe.vae, "encode", counting)
    three_clips(wan, watched, 1, input_image=picture(99))
    assert shapes == [(3, 1, SIZE, SIZE)]


def test_stored_latents_go_on_to_the_same_clip(
    wan: WanVideo, watched: Watched, tmp_path: Path
) -> None:
    undisturbed = three_clips(wan, watched, 1)
    first = wan.svi(watched.run, motion_slots=1, inputs=inputs())
    first.denoise(prompt=PROMPTS[0], seed=7)
    first.denoise(prompt=PROMPTS[1], seed=49)
    first.store(tmp_path / "state.safetensors")
    second = wan.svi(watched.run, motion_slots=1, inputs=inputs(input_image=picture(5)))
    second.restore(tmp_path / "state.safetensors")
    assert torch.equal(second.denoise(prompt=PROMPTS[2], seed=91), undisturbed[2])


def test_what_is_stored_is_small(wan: WanVideo, watched: Watched, tmp_path: Path) -> None:
    clips = wan.svi(watched.run, motion_slots=1, inputs=inputs())
    clips.denoise(prompt=PROMPTS[0], seed=7)
    clips.store(tmp_path / "state.safetensors")
    state = load_file(tmp_path / "state.safetensors")
    side = SIZE // 8
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "anchor": (16, 1, side, side),
        "motion": (16, 3, side, side),
    }


def test_after_a_clip_the_pipeline_is_plain_again(wan: WanVideo, watched: Watched) -> None:
    before = wan.denoise(watched.run, **arguments())
    units = list(wan._pipe.units), list(wan._pipe.post_units)
    three_clips(wan, watched, 1)
    assert (wan._pipe.units, wan._pipe.post_units) == units
    assert torch.equal(wan.denoise(watched.run, **arguments()), before)


def test_a_cancelled_clip_leaves_the_pipeline_plain(wan: WanVideo, watched: Watched) -> None:
    units = list(wan._pipe.units)
    clips = wan.svi(watched.run, motion_slots=1, inputs=inputs())
    asked = count()
    watched.cancel = lambda: next(asked) > 30  # the text encoder is through, the steps are not
    with pytest.raises(JobCancelled):
        clips.denoise(prompt=PROMPTS[0], seed=7)
    assert wan._pipe.units == units


def test_a_pipeline_with_another_embedder_is_refused(wan: WanVideo) -> None:
    index = image_embedder_index(wan._pipe.units)
    unit = wan._pipe.units[index]
    assert isinstance(getattr(unit, "stock", unit), WanVideoUnit_ImageEmbedderVAE)
    with pytest.raises(AssertionError):
        image_embedder_index([other for other in wan._pipe.units if other is not unit])


def test_the_mask_marks_the_anchor_only(wan: WanVideo, watched: Watched) -> None:
    clips = wan.svi(watched.run, motion_slots=2, inputs=inputs())
    assert isinstance(clips, SviClips)
    anchor = torch.full((16, 1, 8, 8), 3.0)
    clips.keep(torch.full((1, 16, LATENTS, 8, 8), 5.0))
    y = clips.conditioning(wan._pipe, anchor, FRAMES)
    assert y.shape == (1, 20, LATENTS, 8, 8)
    assert y[0, :4, 0].min() == 1
    assert y[0, :4, 1:].abs().max() == 0
    assert [float(y[0, 4:, slot].mean()) for slot in range(LATENTS)] == [3, 5, 5, 0, 0, 0]
