"""Presets lie between a model's defaults and what was sent, and belong to models."""

from __future__ import annotations

from typing import Any

import pytest

from core import catalog
from core.catalog import Preset
from core.errors import InvalidParams
from core.workflows import workflow
from core.workflows.presets import presets_for

UPLOAD = "upload:" + "a" * 64
REQUIRED: dict[str, dict[str, Any]] = {
    "i2v": {"prompt": "a boat", "input_image": UPLOAD},
    "svi": {"prompts": ["a boat"], "input_image": UPLOAD},
    "qwen": {"prompt": "a hat", "edit_images": [UPLOAD]},
}
REAL = ("wan2.2-i2v-a14b",)


def parse(workflow_id: str = "i2v", ready: tuple[str, ...] = (), **values: Any) -> Any:
    return workflow(workflow_id).parse({**REQUIRED[workflow_id], **values}, ready=ready)


def problem(**values: Any) -> tuple[str, str]:
    with pytest.raises(InvalidParams) as caught:
        parse(**values)
    (found,) = caught.value.problems
    return found.field, found.message


@pytest.mark.parametrize("preset", catalog.PRESETS, ids=lambda preset: preset.id)
def test_every_preset_is_right_for_each_of_its_models(preset: Preset) -> None:
    assert preset.models
    for model in preset.models:
        params = parse(preset.workflow, model=model, preset=preset.id)
        assert params.preset == preset.id
        names = {part.name for part in params.lora_parts()}
        assert names
        for name in names:
            ref = catalog.find_lora(name)
            assert ref
            assert model in ref.models


def test_ids_stand_for_one_thing_each() -> None:
    for rows in (catalog.PRESETS, catalog.LORAS, catalog.MODELS):
        ids = [row.id for row in rows]
        assert len(set(ids)) == len(ids)


def test_what_a_model_puts_on_by_itself_is_known_and_made_for_it() -> None:
    for row in catalog.MODELS:
        for lora_id in row.loras.values():
            ref = catalog.find_lora(lora_id)
            assert ref
            assert row.id in ref.models
            assert ref.demo == row.demo


def test_a_preset_wins_over_the_models_defaults_and_what_is_sent_over_both() -> None:
    params = parse(preset="i2v-demo-lightning", num_frames=9)
    assert (params.num_inference_steps, params.cfg_scale) == (4, 1.0)
    assert params.resolution == "256x256"  # the model's
    assert params.num_frames == 9
    assert parse(preset="i2v-demo-lightning", num_inference_steps=6).num_inference_steps == 6


def test_without_a_preset_nothing_changes() -> None:
    assert parse(preset="", seed=1) == parse(seed=1)
    assert parse().preset == ""


def test_a_stored_job_keeps_its_values_whatever_the_preset_says_today() -> None:
    stored = {
        **parse(preset="i2v-demo-lightning", num_inference_steps=6).model_dump(mode="json"),
        "lora": [],
    }
    params: Any = workflow("i2v").read(stored)
    assert (params.preset, params.num_inference_steps, params.lora) == ("i2v-demo-lightning", 6, ())
    assert workflow("i2v").read({**stored, "preset": "of-an-older-version"}).preset


def test_a_preset_prefers_its_own_models() -> None:
    assert parse(ready=REAL, preset="i2v-demo-lightning").model == "wan-demo"
    assert parse(ready=REAL, preset="i2v-lightning-4").model == "wan2.2-i2v-a14b"
    variant = ("wan2.2-fun-a14b-control-camera",)
    assert parse(ready=variant, preset="i2v-lightning-4").model == variant[0]


def test_a_preset_for_another_model_is_refused_with_those_that_are() -> None:
    field, message = problem(preset="i2v-lightning-4", model="wan-demo")
    assert field == "preset"
    assert "is for wan2.2-i2v-a14b or" in message
    assert message.endswith("presets that are: i2v-demo-lightning")


@pytest.mark.parametrize("name", ["svi-lightning-6", "nope", 3, ["i2v-lightning-4"]])
def test_a_preset_of_another_workflow_or_none_is_refused_with_those_that_are(name: Any) -> None:
    field, message = problem(preset=name)
    assert field == "preset"
    assert f"one of {', '.join(p.id for p in presets_for('i2v'))}" in message


def test_loras_of_ones_own_have_to_keep_those_of_the_preset() -> None:
    added = ["wan-demo-lightning:0.5", "wan-demo-style"]
    params = parse(preset="i2v-demo-lightning", lora=added)
    assert len(params.lora) == 2
    field, message = problem(preset="i2v-demo-lightning", lora=["wan-demo-style"])
    assert field == "lora"
    assert "is made with 'wan-demo-lightning' as high: add it" in message
    field, message = problem(preset="i2v-demo-lightning", lora=["high=wan-demo-lightning"])
    assert "as low" in message
