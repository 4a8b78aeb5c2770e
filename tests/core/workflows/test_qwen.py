"""qwen: what is accepted, what is refused, and that the message helps."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidParams
from core.workflows import workflow
from core.workflows.qwen_params import COMMANDS, QwenParams
from core.workflows.qwen_sizes import SIZES, auto_size, is_aligned, seen_size

FILES = [f"upload:{letter * 64}" for letter in "abcd"]
MASK = "upload:" + "f" * 64
REQUIRED = {"prompt": "make it red", "edit_images": FILES[:1]}
INPAINT = {"mode": "inpaint", "inpaint_mask": MASK}
MEGAPIXEL = 1024 * 1024


def parse(**values: Any) -> QwenParams:
    params = workflow("qwen").parse({**REQUIRED, **values}, ready=("qwen-image-edit-2511",))
    assert isinstance(params, QwenParams)
    return params


def problem(field: str, **values: Any) -> str:
    with pytest.raises(InvalidParams) as caught:
        parse(**values)
    found = {p.field: p.message for p in caught.value.problems}
    assert field in found, found
    return found[field]


def test_defaults_are_those_of_the_original() -> None:
    params = parse()
    assert (params.num_inference_steps, params.cfg_scale, params.denoising_strength) == (30, 4, 1)
    assert (params.mode, params.controlnet, params.tiled) == ("edit", "none", False)
    assert (params.resolution, params.width, params.height) == ("auto", None, None)


def test_without_real_weights_the_demo_and_its_defaults_are_used() -> None:
    params = workflow("qwen").parse(REQUIRED, ready=())
    assert isinstance(params, QwenParams)
    assert (params.model, params.num_inference_steps, params.cfg_scale) == ("qwen-demo", 8, 1.0)


def test_2511_comes_before_2509() -> None:
    ready = ("qwen-image-edit-2509", "qwen-image-edit-2511")
    assert workflow("qwen").parse(REQUIRED, ready=ready).model == "qwen-image-edit-2511"


def test_what_is_stored_is_read_again_as_it_was() -> None:
    for values in ({}, {"resolution": "1024x1024"}, {"width": 512, "height": 640}, INPAINT):
        first = parse(**values)
        assert first.seed is not None
        assert workflow("qwen").read(first.model_dump(mode="json")) == first


def test_the_order_of_the_pictures_is_kept() -> None:
    assert list(parse(edit_images=[FILES[2], FILES[0], FILES[1]]).edit_images) == [
        FILES[2],
        FILES[0],
        FILES[1],
    ]


def test_all_files_are_told_by_name() -> None:
    params = parse(**INPAINT, edit_images=FILES[:2], controlnet="canny", controlnet_image=FILES[3])
    assert params.file_refs() == {
        "edit_images": tuple(FILES[:2]),
        "inpaint_mask": (MASK,),
        "controlnet_image": (FILES[3],),
    }


@pytest.mark.parametrize("preset", SIZES)
def test_a_preset_sets_the_size_and_is_named_height_by_width(preset: str) -> None:
    params = parse(resolution=preset)
    assert f"{params.height}x{params.width}" == preset
    assert params.width and params.width % 16 == 0


def test_a_free_size_means_custom() -> None:
    assert parse(width=640, height=368).resolution == "custom"


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("edit_images", {"edit_images": []}, "give one to three pictures"),
        ("edit_images", {"edit_images": FILES}, "at most 3 items"),
        ("edit_images", {"edit_images": ["/etc/passwd"]}, "upload:<sha256>"),
        ("edit_images", {"edit_images": FILES[0]}, "valid tuple"),
        ("num_inference_steps", {"num_inference_steps": 1}, "must be from 2 to 200"),
        ("prompt", {"prompt": " \n"}, "prompt is blank"),
        ("inpaint_mask", {"mode": "inpaint"}, "required when mode is 'inpaint'"),
        ("inpaint_mask", {"inpaint_mask": MASK}, "counts only when mode is 'inpaint'"),
        ("feather", {"feather": 4}, "counts only when mode is 'inpaint'"),
        ("feather", {**INPAINT, "feather": 129}, "must be from 0 to 128"),
        ("denoising_strength", {"denoising_strength": 0}, "must be above 0.0 to 1.0"),
        ("height", {"width": 640}, "required when resolution is 'custom'"),
        ("width", {"resolution": "custom"}, "required when resolution is 'custom'"),
        ("width", {"width": 500, "height": 512}, "a multiple of 16 from 256 to 2048"),
        ("height", {"width": 512, "height": 240}, "nearest: 256"),
        (
            "height",
            {"resolution": "1024x1024", "width": 512, "height": 512},
            "contradict resolution '1024x1024'",
        ),
        (
            "height",
            {"resolution": "auto", "width": 512, "height": 512},
            "contradict resolution 'auto'",
        ),
        ("controlnet", {"controlnet": "inpaint"}, "needs mode 'inpaint'"),
        ("controlnet", {"controlnet": "pose"}, "'canny', 'depth' or 'inpaint'"),
        ("controlnet_image", {"controlnet": "depth"}, "required when controlnet is 'depth'"),
        ("controlnet_image", {"controlnet_image": MASK}, "when controlnet is 'canny' or 'depth'"),
        (
            "controlnet_image",
            {**INPAINT, "controlnet": "inpaint", "controlnet_image": MASK},
            "when controlnet is 'canny' or 'depth'",
        ),
        ("controlnet_scale", {"controlnet_scale": 0.5}, "counts only with controlnet"),
        (
            "controlnet_end",
            {"controlnet": "canny", "controlnet_start": 0.5, "controlnet_end": 0.5},
            "must be above controlnet_start=0.5",
        ),
        (
            "controlnet_end",
            {
                "controlnet": "canny",
                "controlnet_start": 0.1,
                "controlnet_end": 0.2,
                "num_inference_steps": 4,
            },
            "none of 4 steps",
        ),
        ("tile_size", {"tile_size": [64, 64]}, "counts only with tiled"),
        ("tile_stride", {"tiled": True, "tile_stride": [128, 64]}, "smaller than tile_size"),
        ("tile_size", {"tiled": True, "tile_size": [4, 64]}, "from 8 to 256"),
        ("schedule", {"schedule": "euler"}, "'regular' or 'lightning'"),
        ("model", {"model": "wan-demo"}, "not one of auto, qwen-image-edit-2511"),
        ("edit_image", {"edit_image": FILES[0]}, "did you mean 'edit_images'?"),
    ],
)
def test_a_bad_value_is_refused_at_its_field_with_help(
    field: str, values: dict[str, Any], said: str
) -> None:
    message = problem(field, **values)
    assert said in message
    assert len(message) < 400


def test_missing_pictures_and_prompt_are_both_told() -> None:
    with pytest.raises(InvalidParams) as caught:
        workflow("qwen").parse({})
    assert {p.field for p in caught.value.problems} == {"prompt", "edit_images"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_what_the_encoder_reads_as_a_command_is_refused(field: str, command: str) -> None:
    assert "reads as a command" in problem(field, **{field: f"a {command} cat"})


def test_other_brackets_and_an_emoji_are_a_prompt() -> None:
    assert parse(prompt="<b>{}</b> <|cat|> 🐱").prompt == "<b>{}</b> <|cat|> 🐱"


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1280, 960), (1280, 960)),  # 1.17 of the area: as it is
        ((1281, 961), (1280, 960)),
        ((768, 768), (768, 768)),  # 0.56
        ((512, 512), (1024, 1024)),
        ((4000, 3000), (1184, 880)),
        ((3000, 4000), (880, 1184)),
        ((1920, 1080), (1360, 768)),
        ((400, 100), (2048, 512)),
    ],
)
def test_the_size_follows_from_the_first_picture(
    picture: tuple[int, int], size: tuple[int, int]
) -> None:
    assert auto_size(picture, MEGAPIXEL) == size


def test_a_long_and_narrow_picture_needs_a_size_of_its_own() -> None:
    with pytest.raises(ValueError, match="401 x 100, longer than 4:1: set a size"):
        auto_size((401, 100), MEGAPIXEL)


def test_a_picture_is_seen_as_diffsynth_would_show_it() -> None:
    assert seen_size((1920, 1080), MEGAPIXEL) == (1376, 768)
    assert seen_size((100, 1600), MEGAPIXEL) == (256, 4096)
    with pytest.raises(ValueError, match="longer than 16:1: crop it"):
        seen_size((100, 1601), MEGAPIXEL)


@pytest.mark.parametrize(
    ("size", "aligned"), [((1024, 768), True), ((1040, 768), True), ((1024, 1024), False)]
)
def test_only_the_pictures_own_shape_is_aligned(size: tuple[int, int], aligned: bool) -> None:
    assert is_aligned((4000, 3000), size) is aligned
