"""Flags that come from a workflow's Params."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, ClassVar

import pytest

from controlplane.cli_flags import add_params, given
from core.catalog import ModelRef
from core.errors import InputRejected
from core.run import Run
from core.workflows import workflow, workflows
from core.workflows.base import Workflow
from core.workflows.params import FileRef, Params, Tier, param
from core.workflows.presets import presets_for


class StoryParams(Params):
    model: str = param("auto", tier=Tier.ADVANCED, help="Weights.")
    seed: int | None = param(None, tier=Tier.BASIC, help="Seed.", ge=0)
    prompts: list[str] = param(tier=Tier.BASIC, help="One a clip.")
    pictures: list[FileRef] = param([], tier=Tier.BASIC, help="References.", widget="image")
    num_clips: int = param(2, tier=Tier.BASIC, help="100% of them.", ge=1, le=9, unit="clips")
    strength: float = param(
        0.5, tier=Tier.ADVANCED, help="How far.", ge=0, le=1, when={"pictures": True}
    )
    mode: str = param("a", tier=Tier.ADVANCED, help="Mode.", needs="modes")
    tiled: bool = param(True, tier=Tier.EXPERT, help="Tiles.")
    tile_size: tuple[int, int] = param((30, 52), tier=Tier.EXPERT, help="Tile.", widget="pair")


class Story(Workflow[StoryParams]):
    id = "story"
    title = "Story"
    summary = "Tells."
    params: ClassVar[type[Params]] = StoryParams

    @property
    def models(self) -> tuple[ModelRef, ...]:
        plain = ModelRef(id="plain", title="", family="wan_video", workflows=(), files=())
        able = ModelRef(
            id="able",
            title="",
            family="wan_video",
            workflows=(),
            files=(),
            capabilities=frozenset({"modes"}),
            defaults={"num_clips": 5},
            demo=True,
        )
        return (plain, able)

    def run(self, params: StoryParams, run: Run) -> None:
        raise AssertionError


def parser_of(workflow: Workflow[Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="x", allow_abbrev=False)
    add_params(parser, workflow)
    return parser


def values(*argv: str) -> dict[str, Any]:
    args = parser_of(Story()).parse_args(argv)
    return given(args, Story(), lambda field, path: f"upload:{field}:{path.name}")


def help_text() -> str:
    return " ".join(parser_of(Story()).format_help().split())


def test_only_what_was_given_is_sent() -> None:
    assert values() == {}


def test_a_parameter_is_its_name_with_dashes_in_its_own_type() -> None:
    assert values("--num-clips", "3", "--strength", "0.25", "--mode", "b") == {
        "num_clips": 3,
        "strength": 0.25,
        "mode": "b",
    }


def test_a_list_repeats_its_flag() -> None:
    assert values("--prompts", "a", "--prompts", "b, c") == {"prompts": ["a", "b, c"]}


def test_a_pair_is_two_values_or_one_with_a_comma() -> None:
    assert values("--tile-size", "16,24") == values("--tile-size", "16", "24")
    assert values("--tile-size", "16,24") == {"tile_size": [16, 24]}


def test_a_switch_has_a_flag_for_off() -> None:
    assert values("--tiled") == {"tiled": True}
    assert values("--no-tiled") == {"tiled": False}


def test_files_are_uploaded_and_addresses_are_passed_on(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    sent = values("--pictures", str(photo), "--pictures", "https://example.org/a.png")
    assert sent == {"pictures": ["upload:pictures:photo.jpg", "https://example.org/a.png"]}


def test_a_file_that_is_not_there_is_refused_at_its_flag(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="'missing.jpg' is not a file") as caught:
        values("--pictures", "missing.jpg")
    assert caught.value.problems[0].field == "pictures"


def test_what_is_no_number_is_left_for_params_to_refuse() -> None:
    assert values("--num-clips", "many") == {"num_clips": "many"}


def test_help_gives_range_unit_default_and_the_default_of_models() -> None:
    assert "100% of them. (from 1 to 9 clips; default 2, 5 with able)" in help_text()
    assert "One a clip. Required." in help_text()
    assert "Tiles. (default on)" in help_text()


def test_help_says_what_counts_only_with_a_model_or_another_flag() -> None:
    assert "Mode. (default a) Only with model able." in help_text()
    assert "How far. (from 0 to 1; default 0.5) Only with --pictures." in help_text()


def test_help_groups_by_tier() -> None:
    text = parser_of(Story()).format_help()
    places = [text.index(f"\n{tier}parameters:") for tier in ("", "advanced ", "expert ")]
    assert places == sorted(places)


@pytest.mark.parametrize("known", workflows(), ids=lambda known: known.id)
def test_every_workflow_has_a_flag_for_every_parameter(known: Workflow[Any]) -> None:
    text = parser_of(known).format_help()
    hidden = set() if presets_for(known.id) else {"preset"}
    for name in set(known.params.model_fields) - hidden:
        assert f"--{name.replace('_', '-')}" in text


def test_a_lora_repeats_its_flag_and_stays_text() -> None:
    i2v = workflow("i2v")
    parser = parser_of(i2v)
    flags = ["--lora", "high=a.safetensors", "--lora", "wan-demo-style:0.5", "--preset", "x"]

    values = given(parser.parse_args(flags), i2v, lambda name, path: "")

    assert "--lora LORA" in parser.format_help()
    assert "wan2.2-lightning-seko" in "".join(parser.format_help().split())
    assert values == {"lora": ["high=a.safetensors", "wan-demo-style:0.5"], "preset": "x"}


def test_a_list_of_files_repeats_its_flag_and_keeps_the_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "mask.png"):
        (tmp_path / name).touch()
    qwen = workflow("qwen")
    flags = ["--edit-images", "b.png", "--edit-images", "a.png", "--inpaint-mask", "mask.png"]
    argv = [str(tmp_path / word) if word.endswith(".png") else word for word in flags]
    args = parser_of(qwen).parse_args(argv)
    sent = given(args, qwen, lambda field, path: f"{field}:{path.name}")
    assert sent == {
        "edit_images": ["edit_images:b.png", "edit_images:a.png"],
        "inpaint_mask": "inpaint_mask:mask.png",
    }


def test_help_names_all_values_of_which_one_is_needed() -> None:
    told = " ".join(parser_of(workflow("qwen")).format_help().split())
    assert "Only with --controlnet canny or depth." in told


def test_help_names_models_only_where_some_are_not_able() -> None:
    told = " ".join(parser_of(Story()).format_help().split())
    assert "Only with model able." in told
    assert "Only with model qwen" not in parser_of(workflow("qwen")).format_help()
