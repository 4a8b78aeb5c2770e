"""i2v: what is accepted, what is refused, and that the message helps."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidParams
from core.workflows import workflow
from core.workflows.i2v import I2VParams

UPLOAD = "upload:" + "a" * 64
REQUIRED = {"prompt": "a boat", "input_image": UPLOAD}


def parse(**values: Any) -> I2VParams:
    params = workflow("i2v").parse({**REQUIRED, **values}, ready=("wan2.2-i2v-a14b",))
    assert isinstance(params, I2VParams)
    return params


def problem(field: str, **values: Any) -> str:
    with pytest.raises(InvalidParams) as caught:
        parse(**values)
    found = {p.field: p.message for p in caught.value.problems}
    assert field in found, found
    return found[field]


def test_defaults_are_those_of_the_original() -> None:
    params = parse()
    assert (params.width, params.height, params.num_frames) == (832, 480, 81)
    assert (params.num_inference_steps, params.cfg_scale, params.sigma_shift) == (50, 5.0, 5.0)
    assert (params.switch_dit_boundary, params.tile_size, params.fps) == (0.9, (30, 52), 16)


def test_without_real_weights_the_demo_and_its_defaults_are_used() -> None:
    params = workflow("i2v").parse(REQUIRED, ready=())
    assert (params.model, params.width, params.num_frames) == ("wan-demo", 256, 17)


def test_what_is_given_wins_over_the_demos_defaults() -> None:
    params = workflow("i2v").parse({**REQUIRED, "num_frames": 33, "width": 128, "height": 96})
    assert (params.num_frames, params.width, params.height) == (33, 128, 96)


def test_a_seed_is_chosen_and_stays() -> None:
    first = parse()
    assert first.seed is not None
    assert workflow("i2v").read(first.model_dump(mode="json")) == first


def test_a_seed_that_is_given_is_kept() -> None:
    assert parse(seed=7).seed == 7


def test_a_preset_sets_the_size() -> None:
    params = parse(resolution="1280x720")
    assert (params.width, params.height) == (720, 1280)


def test_a_free_size_means_custom() -> None:
    assert parse(width=640, height=368).resolution == "custom"


def test_a_size_against_its_preset_is_refused() -> None:
    assert "contradict resolution '480x832'" in problem(
        "height", resolution="480x832", width=640, height=368
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_frames", 80, "4n + 1 from 5 to 241; nearest: 77 or 81"),
        ("num_frames", 1, "nearest: 5"),
        ("num_frames", 10**9, "nearest: 241"),
        ("width", 481, "a multiple of 16 from 64 to 1920; nearest: 480 or 496"),
        ("width", 5000, "nearest: 1920"),
        ("num_inference_steps", 0, "must be from 1 to 200"),
        ("num_inference_steps", 10**9, "must be from 1 to 200"),
        ("seed", -1, "must be from 0 to 9007199254740991"),
        ("seed", 2**60, "must be from 0 to 9007199254740991"),
        ("prompt", "", "at least 1 character"),
        ("prompt", "x" * 1_000_000, "at most 10000 characters"),
        ("input_image", "/etc/passwd", "upload:<sha256>"),
        ("input_image", "http://example.org/a.png", "https://"),
        ("prompt", " \n ", "prompt is blank"),
        ("input_image", "https://[", "not a file reference"),
        ("input_image", "https://host:99999/a.png", "not a file reference"),
        ("input_image", "upload:../../x", "not a file reference"),
        ("cfg_scale", float("nan"), "finite number"),
        ("tile_size", [2, 500], "from 4 to 256"),
        ("tile_stride", [30, 26], "smaller than tile_size"),
        ("fit", "stretch", "'crop' or 'pad'"),
        ("model", "sdxl", "not one of auto, wan2.2-i2v-a14b, wan-demo"),
        ("sead", 1, "did you mean 'seed'?"),
        ("denoising_strength", 0.5, "counts only with input_video"),
    ],
)
def test_a_bad_value_is_refused_at_its_field_with_help(field: str, value: Any, said: str) -> None:
    message = problem(field, **{field: value})
    assert said in message
    assert len(message) < 400


def test_a_missing_prompt_and_image_are_both_told() -> None:
    with pytest.raises(InvalidParams) as caught:
        workflow("i2v").parse({})
    assert {p.field for p in caught.value.problems} == {"prompt", "input_image"}


def test_a_tile_without_tiling_is_refused() -> None:
    assert "counts only with tiled" in problem("tile_size", tiled=False, tile_size=[20, 20])


def test_an_emoji_is_a_prompt() -> None:
    assert parse(prompt="🚤").prompt == "🚤"


def test_strength_counts_with_a_video() -> None:
    assert parse(input_video=UPLOAD, denoising_strength=0.5).denoising_strength == 0.5
