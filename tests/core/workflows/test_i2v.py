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
        ("model", "sdxl", "not one of auto, wan2.2-i2v-a14b, wan2.1-i2v-14b-720p"),
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


# --- what only some models can do ----------------------------------------------------------------

CAMERA = "wan2.2-fun-a14b-control-camera"
SPEED = "wan2.1-t2v-1.3b-speed"
WAN21 = "wan2.1-i2v-14b-480p"
ANY = "wan2.2-i2v-a14b"


@pytest.mark.parametrize(
    ("model", "field", "value", "able"),
    [
        (ANY, "camera_direction", "left", CAMERA),
        (ANY, "camera_direction", "left", "wan2.1-fun-v1.1-1.3b-control-camera"),
        (WAN21, "camera_speed", 0.01, CAMERA),
        (SPEED, "camera_origin", "0,1,1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1,0", CAMERA),
        (ANY, "motion_bucket_id", 50, SPEED),
        (CAMERA, "motion_bucket_id", 0, SPEED),
        (ANY, "tea_cache_l1_thresh", 0.1, WAN21),
        (CAMERA, "tea_cache_l1_thresh", 0.1, SPEED),
        (WAN21, "step_cache", 0.1, ANY),
        (SPEED, "step_cache", 0.1, CAMERA),
        (CAMERA, "cfg_merge", True, ANY),
        (CAMERA, "end_image", UPLOAD, ANY),
        (WAN21, "end_image", UPLOAD, ANY),
        (SPEED, "end_image", UPLOAD, ANY),
        (SPEED, "input_video", UPLOAD, WAN21),
        (WAN21, "switch_dit_boundary", 0.5, ANY),
    ],
)
def test_what_a_model_cant_do_is_refused_with_the_models_that_can(
    model: str, field: str, value: Any, able: str
) -> None:
    message = problem(field, model=model, **{field: value})
    assert f"can't be used with model {model!r}; models that can: " in message
    assert able in message.partition("models that can: ")[2].split(", ")


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (CAMERA, {"camera_direction": "right_up", "camera_speed": 0.02}),
        (CAMERA, {"camera_direction": "in", "input_video": UPLOAD, "denoising_strength": 0.5}),
        (CAMERA, {"step_cache": 0.1, "switch_dit_boundary": 0.8}),
        ("wan2.1-fun-v1.1-14b-control-camera", {"camera_direction": "out"}),
        (SPEED, {"motion_bucket_id": 100, "tea_cache_l1_thresh": 0.05}),
        (WAN21, {"tea_cache_l1_thresh": 0.2}),
        (WAN21, {"cfg_merge": True}),
        (ANY, {"step_cache": 0.1, "cfg_merge": True, "end_image": UPLOAD}),
    ],
)
def test_what_a_model_can_do_is_taken(model: str, given: dict[str, Any]) -> None:
    params = parse(model=model, **given)
    assert {name: getattr(params, name) for name in given} == given


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("camera_speed", {"camera_speed": 0.5}, "counts only with camera_direction"),
        (
            "camera_origin",
            {"camera_origin": "0,1" + ",0" * 5 + ",1,0,0,0,0,1,0,0,0,0,1,0"},
            "camera_origin: fx=1 and fy=0 must be above 0",
        ),
        ("camera_speed", {"camera_direction": "left", "camera_speed": -1}, "from 0.0 to 1.0"),
        ("camera_direction", {"camera_direction": "back"}, "'none', 'left', 'right'"),
        ("camera_origin", {"camera_origin": "1,2,3"}, "has 3 numbers; it must be 19"),
        ("camera_origin", {"camera_origin": "here"}, "must be numbers with commas"),
        ("camera_origin", {"camera_origin": [0, 1, 1] + [0] * 16}, "must have an inverse"),
        ("camera_origin", {"camera_origin": "nan" + ",1" * 18}, "must be finite numbers"),
    ],
)
def test_a_camera_that_cant_be_is_refused(field: str, given: dict[str, Any], said: str) -> None:
    assert said in problem(field, model=CAMERA, **given)


def test_a_camera_starts_where_upstream_starts_it_and_slower() -> None:
    params = parse(model=CAMERA)
    assert (params.camera_direction, params.camera_speed) == ("none", 0.01)
    assert parse().camera_speed == 0.0185
    assert params.camera_origin.startswith("0,0.532139961,0.946026558,0.5,0.5,0,0,1,0,0,0,")


def test_a_pose_may_be_a_list_and_is_kept_in_one_way() -> None:
    numbers = [3, 0.6, 0.9, 0.5, 0.5, 0, 0, 1, 0, 0, 0.25, 0, 1, 0, 0, 0, 0, 1, 0]
    given = {"model": CAMERA, "camera_direction": "left"}
    listed = parse(camera_origin=numbers, **given).camera_origin
    assert listed == "3,0.6,0.9,0.5,0.5,0,0,1,0,0,0.25,0,1,0,0,0,0,1,0"
    assert parse(camera_origin=listed.replace(",", " , "), **given).camera_origin == listed
    usual = parse(model=CAMERA).camera_origin
    floats = [float(number) for number in usual.split(",")]
    assert parse(model=CAMERA, camera_origin=floats).camera_origin == usual


@pytest.mark.parametrize(("value", "said"), [(-1, "from 0 to 100"), (101, "from 0 to 100")])
def test_motion_is_from_0_to_100(value: int, said: str) -> None:
    assert said in problem("motion_bucket_id", model=SPEED, motion_bucket_id=value)


def test_both_sides_at_once_need_two_sides_and_no_tea_cache() -> None:
    assert "needs cfg_scale above 1" in problem("cfg_merge", cfg_merge=True, cfg_scale=1)
    assert "can't be used with cfg_merge" in problem(
        "tea_cache_l1_thresh", model=WAN21, cfg_merge=True, tea_cache_l1_thresh=0.1
    )


def test_a_picture_that_starts_as_a_still_video_has_a_strength() -> None:
    assert parse(model=SPEED).denoising_strength == 0.9
    assert parse(model=SPEED, denoising_strength=0.4).denoising_strength == 0.4
    assert "counts only with input_video" in problem("denoising_strength", denoising_strength=0.9)


def test_a_models_own_defaults_are_no_offence() -> None:
    for model in workflow("i2v").models:
        params = parse(model=model.id)
        assert params.model == model.id
        assert workflow("i2v").read(params.model_dump(mode="json")) == params
