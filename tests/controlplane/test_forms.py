"""Forms: what Params tell becomes fields, and touched values become what is shown and wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.forms import Choice, Field, Form, form_of, view_of
from core.catalog import ModelRef
from core.workflows import workflow, workflows
from core.workflows.base import Workflow
from core.workflows.i2v import I2V as I2VWorkflow
from core.workflows.presets import presets_for

I2V: Workflow[Any] = workflow("i2v")
WAN = "wan2.2-i2v-a14b"
DEMO = "wan-demo"
PICTURE = "upload:" + "a" * 64
GIVEN = {"prompt": "a boat", "input_image": PICTURE}


def field(name: str, form: Form | None = None) -> Field:
    return next(f for f in (form or form_of(I2V, ())).fields if f.name == name)


@pytest.mark.parametrize("known", workflows(), ids=lambda known: known.id)
def test_every_parameter_of_every_workflow_has_one_field(known: Workflow[Any]) -> None:
    names = [f.name for f in form_of(known, ()).fields]

    hidden = set() if presets_for(known.id) else {"preset"}
    assert sorted(names) == sorted(set(known.params.model_fields) - hidden)
    assert all(f.title and f.help for f in form_of(known, ()).fields)


def test_fields_stand_in_the_order_of_the_params_not_of_their_parent() -> None:
    names = [f.name for f in form_of(I2V, ()).fields]

    assert names[:5] == ["prompt", "preset", "negative_prompt", "input_image", "seed"]


@pytest.mark.parametrize(
    ("name", "widget", "value_type"),
    [
        ("prompt", "textarea", "string"),
        ("input_image", "image", "string"),
        ("seed", "seed", "integer"),
        ("resolution", "select", "string"),
        ("fit", "choice", "string"),
        ("cfg_scale", "slider", "number"),
        ("tiled", "switch", "boolean"),
        ("tile_size", "pair", "pair"),
    ],
)
def test_a_widget_follows_from_type_and_hints(name: str, widget: str, value_type: str) -> None:
    found = field(name)

    assert (found.widget, found.type) == (widget, value_type)


def test_a_grid_gives_the_steps_and_ends_of_a_slider() -> None:
    frames = field("num_frames")

    assert (frames.minimum, frames.maximum, frames.step, frames.unit) == (5, 241, 4, "frames")


def test_an_exclusive_bound_starts_one_step_inside() -> None:
    strength = field("denoising_strength")

    assert (strength.minimum, strength.maximum, strength.step) == (0.01, 1.0, 0.01)


def test_a_name_without_a_title_is_put_into_words() -> None:
    assert field("negative_prompt").title == "Negative prompt"
    assert field("num_inference_steps").title == "Steps"


def test_required_parameters_say_so_and_the_first_text_names_the_job() -> None:
    form = form_of(I2V, ())

    assert [f.name for f in form.fields if f.required] == ["prompt", "input_image"]
    assert form.headline == "prompt"


def test_models_that_are_not_here_say_so_in_their_choice() -> None:
    away = field("model", form_of(I2V, ())).choices
    here = field("model", form_of(I2V, (WAN,))).choices

    assert away[0] == Choice(value="auto", label="Automatic")
    assert away[1].label == "Wan 2.2 I2V A14B (not here yet)"
    assert here[1].label == "Wan 2.2 I2V A14B"


def test_fields_appear_with_the_value_that_they_depend_on() -> None:
    preset = view_of(I2V, {"resolution": "480x832"}, ())
    custom = view_of(I2V, {"resolution": "custom"}, ())

    assert not preset.fields["width"].shown
    assert custom.fields["width"].shown


def test_a_file_that_is_given_shows_what_depends_on_it() -> None:
    without, given = view_of(I2V, {}, ()), view_of(I2V, {"input_video": PICTURE}, ())

    assert not without.fields["denoising_strength"].shown
    assert given.fields["denoising_strength"].shown


def test_another_model_changes_the_defaults_of_what_was_not_touched() -> None:
    demo = view_of(I2V, {"model": DEMO, "cfg_scale": 7}, ())
    wan = view_of(I2V, {"model": WAN, "cfg_scale": 7}, ())

    assert (demo.fields["num_frames"].default, wan.fields["num_frames"].default) == (17, 81)
    assert demo.counting({"cfg_scale": 7}) == wan.counting({"cfg_scale": 7}) == {"cfg_scale": 7}


@pytest.mark.parametrize(("ready", "model", "demo"), [((), DEMO, True), ((WAN,), WAN, False)])
def test_automatic_is_the_best_model_that_is_here(
    ready: tuple[str, ...], model: str, demo: bool
) -> None:
    view = view_of(I2V, {}, ready)

    assert (view.model.id, view.model.demo, view.model.ready) == (model, demo, True)


def test_a_chosen_model_without_weights_is_not_ready() -> None:
    assert not view_of(I2V, {"model": WAN}, ()).model.ready


class PlainFirst(I2VWorkflow):
    """The same recipe, with a first model that can less."""

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """One model without capabilities, then the real ones."""
        rows = super().models
        plain = replace(rows[0], id="plain", title="Plain", capabilities=frozenset())
        return (plain, *rows)


def test_a_model_without_the_capability_blocks_the_field_and_names_one_that_can() -> None:
    view = view_of(PlainFirst(), {"model": "plain", "end_image": PICTURE}, ())

    assert view.fields["end_image"].blocked.startswith("Not with Plain. Models that can: Wan 2.2")
    assert view.counting({"end_image": PICTURE}) == {}


def test_empty_required_fields_are_missing_and_no_problem_yet() -> None:
    view = view_of(I2V, {"prompt": ""}, ())

    assert view.missing == ("prompt", "input_image")
    assert view.problems == ()


def test_a_wrong_value_is_a_problem_at_its_field_with_the_nearest_right_ones() -> None:
    [problem] = view_of(I2V, {"num_frames": 80}, ()).problems

    assert problem.field == "num_frames"
    assert problem.message.endswith("nearest: 77 or 81")


def test_hidden_values_are_neither_checked_nor_counted() -> None:
    values = {**GIVEN, "width": 123, "resolution": "480x832"}
    view = view_of(I2V, values, ())

    assert view.problems == ()
    assert view.counting(values) == {**GIVEN, "resolution": "480x832"}


def test_what_counts_is_what_the_workflow_takes() -> None:
    values = {**GIVEN, "resolution": "custom", "width": 320, "height": 192, "seed": 7}
    params = I2V.parse(view_of(I2V, values, ()).counting(values))

    assert (params.width, params.height, params.seed, params.num_frames) == (320, 192, 7, 17)


def test_a_draft_with_a_model_that_is_gone_is_a_problem_and_the_form_still_shows() -> None:
    view = view_of(I2V, {"model": "gone"}, ())

    assert view.model.id == DEMO
    assert [problem.field for problem in view.problems] == ["model"]


def test_camera_speed_appears_with_a_direction_and_only_where_the_model_has_a_camera() -> None:
    camera = {"model": "wan-demo-camera"}
    still, moving = view_of(I2V, camera, ()), view_of(I2V, {**camera, "camera_direction": "in"}, ())
    other = view_of(I2V, {"model": WAN, "camera_direction": "in"}, ())

    assert not still.fields["camera_speed"].shown
    assert moving.fields["camera_speed"].shown and not moving.fields["camera_speed"].blocked
    assert "Fun A14B, camera control" in other.fields["camera_direction"].blocked
    assert "camera_direction" not in other.counting({"camera_direction": "in"})


def test_strength_is_shown_where_the_picture_starts_as_a_still_video() -> None:
    view = view_of(I2V, {"model": "wan-demo-speed"}, ())

    strength = view.fields["denoising_strength"]
    assert (strength.shown, strength.default) == (True, 0.9)
    assert view.fields["input_video"].blocked and not view.fields["motion_bucket_id"].blocked


def test_numbers_that_may_be_left_out_have_no_slider() -> None:
    assert field("motion_bucket_id").widget == field("tea_cache_l1_thresh").widget == "number"
    assert field("camera_origin").widget == "text"


# --- presets and LoRAs ---------------------------------------------------------------------------


def test_presets_of_the_workflow_are_choices_of_one_field() -> None:
    choices = field("preset").choices

    assert choices[0] == Choice(value="", label="None")
    assert "i2v-demo-lightning" in {choice.value for choice in choices}
    assert not any(choice.value.startswith("svi") for choice in choices)


def test_a_preset_changes_the_defaults_of_what_was_not_touched() -> None:
    view = view_of(I2V, {"preset": "i2v-demo-lightning", "cfg_scale": 3.0}, ())

    assert view.fields["num_inference_steps"].default == 4
    assert view.fields["lora"].default[0]["low"] == "wan-demo-lightning"
    assert view.fields["num_frames"].default == 17  # the model's
    assert view.problems == ()


def test_a_preset_chooses_its_model_where_none_is_chosen() -> None:
    here = ("wan2.2-i2v-a14b",)

    assert view_of(I2V, {"preset": "i2v-demo-lightning"}, here).model.demo
    assert view_of(I2V, {}, here).model.id == "wan2.2-i2v-a14b"


def test_a_preset_for_another_model_is_a_problem_and_changes_nothing() -> None:
    view = view_of(I2V, {"preset": "i2v-lightning-4", "model": "wan-demo"}, ())

    assert [p.field for p in view.problems] == ["preset"]
    assert view.fields["num_inference_steps"].default == 8


def test_the_catalogs_loras_of_the_family_are_choices() -> None:
    choices = {choice.value for choice in field("lora").choices}

    assert {"wan2.2-lightning", "wan-demo-style"} <= choices
    assert "qwen-demo-style" not in choices


def test_a_lora_that_is_wrong_is_a_problem_at_its_field() -> None:
    view = view_of(I2V, {"lora": [{"high": "a.safetensors"}, {"high": "x.ckpt"}]}, ())

    assert [p.field for p in view.problems] == ["lora"]
    assert view.problems[0].message.startswith("lora[1].high: 'x.ckpt' is a pickle")


def test_schemas_hold_no_reference_that_counts_from_their_own_root() -> None:
    for known in workflows():
        assert "$ref" not in str(known.params.model_json_schema())


# --- lists ---------------------------------------------------------------------------------------

SVI: Workflow[Any] = workflow("svi")
QWEN: Workflow[Any] = workflow("qwen")


@pytest.mark.parametrize(
    ("recipe", "name", "widget", "most"),
    [
        (SVI, "prompts", "texts", 1000),
        (QWEN, "edit_images", "images", 3),
        (QWEN, "inpaint_mask", "mask", None),
        (QWEN, "lora", "lora", 16),
        (SVI, "continue_from", "clip", None),
    ],
)
def test_lists_masks_and_clips_have_widgets_of_their_own(
    recipe: Workflow[Any], name: str, widget: str, most: int | None
) -> None:
    found = field(name, form_of(recipe, ()))

    assert (found.widget, found.max_items) == (widget, most)


def test_a_list_of_texts_names_the_job_and_the_parameter_that_counts_it() -> None:
    form = form_of(SVI, ())

    assert form.headline == "prompts"
    assert field("prompts", form).counted_by == "num_clips"


def test_a_lora_s_texts_and_numbers_come_from_the_schema_of_its_items() -> None:
    wan = {part.name: part for part in field("lora").parts}
    qwen = [part.name for part in field("lora", form_of(QWEN, ())).parts]

    assert list(wan) == ["high", "low", "high_strength", "low_strength"]
    assert qwen == ["file", "strength"]
    assert (wan["high"].type, wan["high"].minimum) == ("string", None)
    strength = wan["high_strength"]
    assert (strength.type, strength.default, strength.minimum, strength.maximum) == (
        "number",
        1.0,
        -4.0,
        4.0,
    )


@pytest.mark.parametrize("value", [None, "", []])
def test_an_empty_list_that_is_required_is_missing_and_no_problem_yet(value: object) -> None:
    view = view_of(SVI, {"prompts": value, "input_image": PICTURE}, ())

    assert view.missing == ("prompts",)
    assert view.problems == ()


def test_an_empty_list_of_ones_own_wins_over_a_preset_s() -> None:
    values = {**GIVEN, "preset": "i2v-demo-lightning", "lora": []}
    view = view_of(I2V, values, ())

    assert view.counting(values)["lora"] == []
    assert [problem.field for problem in view.problems] == ["lora"]  # its steps need the LoRA


def test_a_blank_prompt_is_told_with_its_number() -> None:
    [problem] = view_of(SVI, {"prompts": ["a", " "], "input_image": PICTURE}, ()).problems

    assert problem.field == "prompts"
    assert "number 2 is blank" in problem.message


def test_without_an_end_the_number_of_clips_does_not_count() -> None:
    view = view_of(SVI, {"infinite_mode": True, "num_clips": 3}, ())

    assert not view.fields["num_clips"].shown
    assert view.counting({"num_clips": 3}) == {}
