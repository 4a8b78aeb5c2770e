"""svi: what is accepted, what is refused, and the plan that follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidParams
from core.protocol import new_job_id
from core.workflows import workflow
from core.workflows.params import SEED_MAX
from core.workflows.svi import SviParams, clip_seed

UPLOAD = "upload:" + "a" * 64
REQUIRED = {"prompts": ["a boat", "it lands"], "input_image": UPLOAD}


def parse(**values: Any) -> SviParams:
    params = workflow("svi").parse({**REQUIRED, **values}, ready=("wan2.2-i2v-a14b",))
    assert isinstance(params, SviParams)
    return params


def problems(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidParams) as caught:
        parse(**values)
    return {p.field: p.message for p in caught.value.problems}


def test_defaults_are_those_of_the_original() -> None:
    params = parse()
    assert (params.num_clips, params.num_motion_frames, params.infinite_mode) == (10, 5, False)
    assert (params.num_inference_steps, params.cfg_scale, params.num_frames) == (50, 5.0, 81)
    assert (params.seam, params.colour_match, params.continue_from) == ("cut", 0.0, None)


@pytest.mark.parametrize(("frames", "slots"), [(5, 1), (9, 2), (13, 3)])
def test_motion_frames_are_whole_latents(frames: int, slots: int) -> None:
    assert parse(num_motion_frames=frames).motion_slots == slots


def test_other_motion_frames_are_refused_with_the_nearest() -> None:
    assert "nearest: 5 or 9" in problems(num_motion_frames=7)["num_motion_frames"]


def test_more_prompts_than_clips_are_refused() -> None:
    message = problems(prompts=["a", "b", "c"], num_clips=2)["num_clips"]
    assert "there are 3 prompts" in message
    assert "set num_clips to 3" in message


def test_more_prompts_than_the_usual_number_of_clips_are_refused_too() -> None:
    assert "there are 11 prompts" in problems(prompts=["a"] * 11)["num_clips"]


def test_an_endless_job_takes_any_number_of_prompts() -> None:
    assert len(parse(prompts=["a"] * 20, infinite_mode=True).prompts) == 20


def test_an_endless_job_with_a_number_of_clips_is_refused() -> None:
    assert "num_clips" in problems(infinite_mode=True, num_clips=3)


def test_an_overlap_that_is_a_whole_clip_is_refused() -> None:
    message = problems(num_motion_frames=13, num_frames=13)["num_motion_frames"]
    assert "num_frames must be at least 17" in message
    assert "num_motion_frames" in problems(num_frames=5)
    assert parse(num_motion_frames=13, num_frames=17).motion_slots == 3


def test_a_blank_prompt_is_refused_by_its_number() -> None:
    assert "number 2 is blank" in problems(prompts=["a", "  "])["prompts"]


@pytest.mark.parametrize("prompts", [[], "a boat", ["a" * 10_001]])
def test_prompts_that_are_no_list_of_texts_are_refused(prompts: Any) -> None:
    assert "prompts" in problems(prompts=prompts)


@pytest.mark.parametrize("ref", ["7", "clip:x/1", "clip:" + "0" * 36, "upload:" + "a" * 64])
def test_what_names_no_clip_is_refused(ref: str) -> None:
    assert "clip:<job id>/<index from 0>" in problems(continue_from=ref)["continue_from"]


@pytest.mark.parametrize("name", ["end_image", "input_video", "camera_direction", "prompt"])
def test_what_svi_can_not_use_is_no_parameter_of_it(name: str) -> None:
    assert f"'{name}' is not a parameter" in problems(**{name: UPLOAD})[name]


def test_a_plan_has_one_clip_a_prompt_and_the_last_one_goes_on() -> None:
    plan = workflow("svi").plan(parse(num_clips=4))
    assert plan is not None
    assert [plan.prompt(i) for i in range(4)] == ["a boat", "it lands", "it lands", "it lands"]
    assert [plan.wants(i) for i in range(5)] == [True, True, True, True, False]


def test_a_continued_plan_begins_after_the_kept_clips() -> None:
    plan = workflow("svi").plan(parse(continue_from=f"clip:{new_job_id()}/2", num_clips=2))
    assert plan is not None
    assert (plan.first, plan.end) == (3, 5)
    assert [plan.prompt(i) for i in (3, 4)] == ["a boat", "it lands"]


def test_an_endless_plan_wants_clips_until_it_is_told_to_finish() -> None:
    plan = workflow("svi").plan(parse(infinite_mode=True))
    assert plan is not None
    assert plan.wants(999)
    told = plan.model_copy(update={"finish": True})
    assert told.wants(0)
    assert not told.wants(1)


def test_planned_params_make_the_same_plan() -> None:
    svi = workflow("svi")
    plan = svi.plan(parse())
    assert plan is not None
    steered = plan.model_copy(update={"prompts": ("x", "y", "z"), "num_clips": 5})
    again = svi.plan(parse(**svi.planned(steered)))
    assert again == steered


def test_clips_have_seeds_of_their_own() -> None:
    assert [clip_seed(7, i) for i in range(3)] == [7, 49, 91]
    assert clip_seed(SEED_MAX, 1) == 41


def test_a_clip_of_another_size_is_not_continued() -> None:
    svi = workflow("svi")
    with pytest.raises(InvalidParams, match="the clip is 480 x 832 at 16"):
        svi.check_continuation(parse(), parse(resolution="832x480"))
    svi.check_continuation(parse(), parse(prompts=["another"]))
