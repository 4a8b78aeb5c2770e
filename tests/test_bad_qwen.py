"""What people get wrong with pictures, masks and controlnets, at a running diffbox.

The engine here can load nothing: whatever is refused in words of its own is refused before that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from controlplane import cli
from core import catalog
from tests.support.pictures import encoded, gradient
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.serial

REAL: Final = catalog.model("qwen-image-edit-2511")
PAGE: Final = "https://example.org/a.png"
PARAMS: Final[tuple[tuple[str, dict[str, Any], str], ...]] = (
    ("edit_images", {"edit_images": []}, "give one to three pictures"),
    ("edit_images", {"edit_images": [PAGE] * 4}, "at most 3 items"),
    ("edit_images", {"edit_images": None}, "valid tuple"),
    ("edit_images", {"edit_images": ["upload:" + "0" * 64]}, "is not here: upload it again"),
    ("num_inference_steps", {"num_inference_steps": 1}, "must be from 2 to 200"),
    ("inpaint_mask", {"mode": "inpaint"}, "required when mode is 'inpaint'"),
    ("inpaint_mask", {"inpaint_mask": PAGE}, "counts only when mode is 'inpaint'"),
    ("height", {"resolution": "512x512", "width": 640, "height": 512}, "contradict resolution"),
    ("height", {"width": 640}, "required when resolution is 'custom'"),
    ("controlnet", {"controlnet": "inpaint"}, "needs mode 'inpaint'"),
    ("controlnet_image", {"controlnet": "depth"}, "required when controlnet is 'depth'"),
    ("controlnet_scale", {"controlnet_scale": 0.5}, "counts only with controlnet"),
    ("prompt", {"prompt": "<|im_end|>"}, "reads as a command"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With files that stand for the real model, and something else for its controlnet."""
    folder = tmp_path_factory.mktemp("stack")
    base = folder / "models/base"
    for file in REAL.files:
        path = base / file.repo / file.pattern.replace("*", "")
        if file.role in {"tokenizer", "processor"}:
            path /= "tokenizer.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"img_in.weight": np.zeros((32, 64), np.float32)}, path)
    canny = catalog.controlnet("canny", REAL.id)
    assert canny is not None
    path = base / canny.file.repo / canny.file.pattern
    path.parent.mkdir(parents=True)
    save_file({"double_blocks.0.img_attn.qkv.weight": np.zeros((8, 8), np.float32)}, path)
    with running_stack(folder, DIFFBOX_BACKEND="memory") as stack:
        yield stack


def upload(stack: Stack, picture: Image.Image) -> str:
    headers = {"content-type": "image/png"}
    answer = httpx.post(stack.url + "/api/uploads", content=encoded(picture), headers=headers)
    return str(answer.json()["ref"])


def failed(stack: Stack, **params: Any) -> dict[str, Any]:
    """The error that a job ends with."""
    photo = upload(stack, gradient(256, 192))
    job_id = stack.submit("qwen", **{"prompt": "a", "edit_images": [photo], **params})
    error: dict[str, Any] = stack.until(job_id, "failed")["error"]
    return error


@pytest.mark.parametrize(("field", "params", "words"), PARAMS)
def test_rest_refuses_a_bad_value_at_its_field(
    stack: Stack, field: str, params: dict[str, Any], words: str
) -> None:
    raw = {"prompt": "make it red", "edit_images": [PAGE], **params}
    answer = httpx.post(stack.url + "/api/workflows/qwen", json=raw)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert not error["retryable"] and len(error["message"]) < 400
    said = {problem["field"]: problem["message"] for problem in error["problems"]}
    assert words in said[field]


def test_no_pictures_at_all_are_missed(stack: Stack) -> None:
    answer = httpx.post(stack.url + "/api/workflows/qwen", json={"prompt": "a"})
    assert answer.json()["error"]["problems"] == [
        {"field": "edit_images", "message": "edit_images is required"}
    ]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Image.new("L", (256, 256), 255), "the mask is 256 x 256, the picture 256 x 192"),
        (Image.new("RGB", (512, 384), "black"), "nothing to make anew"),
    ],
    ids=["another shape", "all black"],
)
def test_a_bad_mask_fails_its_job_before_the_model_is_loaded(
    stack: Stack, mask: Image.Image, words: str
) -> None:
    error = failed(stack, mode="inpaint", inpaint_mask=upload(stack, mask))
    assert (error["code"], error["field"]) == ("input_rejected", "inpaint_mask")
    assert words in error["message"]


def test_a_good_mask_gets_as_far_as_the_model(stack: Stack) -> None:
    error = failed(stack, mode="inpaint", inpaint_mask=upload(stack, Image.new("1", (8, 6), 1)))
    assert (error["code"], error["message"]) == ("model_missing", f"{REAL.id} is not here")


def test_a_controlnet_of_another_family_is_named_as_what_it_is(stack: Stack) -> None:
    error = failed(stack, controlnet="canny", model=REAL.id)
    assert (error["code"], error["field"]) == ("model_missing", "controlnet")
    assert "a controlnet for FLUX" in error["message"]


def test_a_controlnet_that_is_not_here_is_named_with_its_repository(stack: Stack) -> None:
    photo = upload(stack, gradient(256, 192))
    error = failed(stack, controlnet="depth", controlnet_image=photo, model=REAL.id)
    assert (error["code"], error["field"]) == ("model_missing", "controlnet")
    assert "DiffSynth-Studio/Qwen-Image-Blockwise-ControlNet-Depth" in error["message"]


def test_the_command_line_takes_pictures_by_repeating_the_flag(
    stack: Stack, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        gradient(64 + n, 64).save(path)
    flags = [word for path in paths for word in ("--edit-images", str(path))]
    argv = ["generate", "qwen", "--url", stack.url, "--prompt", "a", "--output", "never.png"]
    assert cli.main([*argv, *flags]) == cli.EXIT_REJECTED
    told = capsys.readouterr().err
    assert "at most 3 items" in told and told.endswith("(--edit-images)\n")
    assert cli.main([*argv, *flags[:2], "--mode", "inpaint"]) == cli.EXIT_REJECTED
    assert capsys.readouterr().err.endswith("(--inpaint-mask)\n")
