"""Whole qwen jobs on the demo: what is kept is kept to the bit, and bad inputs cost no load."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from core import media
from core.config import CoreConfig
from core.engine import Engine
from core.media.masks import feathered
from core.protocol import Cancelled, Completed, Failed, Progress, Stage
from core.run import Run
from core.warm import LoadedPipeline
from core.workflows.base import PipelineSpec
from tests.core.pipelines.qwen_runs import Box, left_half, spots
from tests.support.engine import DEVICE
from tests.support.pictures import encoded

SIZE = (256, 256)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """With fine detail, which no VAE gives back."""
    noise = np.random.default_rng(3).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Image.blend(spots(1, SIZE), Image.fromarray(noise), 0.3)


@pytest.fixture
def idle(tmp_path: Path) -> Box:
    """An engine that must not come to loading anything."""

    def load(spec: PipelineSpec, run: Run) -> LoadedPipeline:
        raise AssertionError(f"{spec.model} is loaded")

    config = CoreConfig(data_dir=tmp_path, models_dir=tmp_path, outputs_dir=tmp_path / "out")
    return Box(Engine(load=load, config=config, device=DEVICE, versions={}), config)


def failure(box: Box, **raw: Any) -> Failed:
    end = box.end(**raw)
    assert isinstance(end, Failed), end
    return end


# --- inpaint -------------------------------------------------------------------------------------


@pytest.mark.parametrize("feather", [0, 24])
def test_outside_the_mask_every_pixel_is_the_uploaded_one(
    box: Box, photo: Image.Image, feather: int
) -> None:
    mask = left_half(SIZE)
    made = box.pixels(
        edit_images=[box.upload(photo)],
        mode="inpaint",
        inpaint_mask=box.upload(mask),
        feather=feather,
    )
    before = np.asarray(photo)
    assert np.array_equal(made[:, 128 + feather :], before[:, 128 + feather :])
    changed = (made != before).any(axis=2)
    assert changed[:, :128].mean() > 0.99
    assert changed[:, 128 : 128 + feather].mean() > 0.8 if feather else True


def test_the_soft_edge_goes_from_the_new_to_the_old(box: Box, photo: Image.Image) -> None:
    given = {"edit_images": [box.upload(photo)], "mode": "inpaint"}
    mask, everything = left_half(SIZE), Image.new("L", SIZE, 255)
    soft = box.pixels(**given, inpaint_mask=box.upload(mask), feather=64).astype(float)
    weights = np.asarray(feathered(mask, 64)).astype(float)[..., None] / 255
    old = np.asarray(photo).astype(float)
    new = (soft - old * (1 - weights))[:, 128:185] / weights[:, 128:185]
    # What was put in is a picture: its colours lie in range, but for rounding.
    assert new.min() > -20 and new.max() < 275
    whole = box.pixels(**given, inpaint_mask=box.upload(everything), feather=64)
    assert (whole != np.asarray(photo)).any(axis=2).mean() > 0.99


def test_what_is_made_anew_goes_with_what_is_kept(box: Box, photo: Image.Image) -> None:
    """The model is given the mask as well: what it makes is not cut out of a free edit."""
    refs = [box.upload(photo)]
    free = box.pixels(edit_images=refs)
    mask = box.upload(left_half(SIZE))
    bound = box.pixels(edit_images=refs, mode="inpaint", inpaint_mask=mask, feather=0)
    assert (free[:, :128] != bound[:, :128]).any(axis=2).mean() > 0.05


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA"])
def test_a_mask_of_any_size_and_mode_keeps_the_same_pixels(
    box: Box, photo: Image.Image, mode: str
) -> None:
    mask = left_half((1024, 1024))
    stored = Image.merge("RGBA", (mask, mask, mask, mask)) if mode == "RGBA" else mask.convert(mode)
    made = box.pixels(
        edit_images=[box.upload(photo)],
        mode="inpaint",
        inpaint_mask=box.upload(stored),
        feather=0,
    )
    before = np.asarray(photo)
    assert np.array_equal(made[:, 129:], before[:, 129:])
    assert (made[:, :127] != before[:, :127]).any(axis=2).mean() > 0.99


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_at_another_size_the_fitted_picture_is_kept(box: Box, fit: media.Fit) -> None:
    photo = spots(4, (300, 400))
    made = box.pixels(
        edit_images=[box.upload(photo)],
        mode="inpaint",
        inpaint_mask=box.upload(left_half((300, 400))),
        feather=0,
        resolution="256x256",
        fit=fit,
    )
    before = np.asarray(media.fitted(photo, SIZE, fit))
    assert np.array_equal(made[:, 129:], before[:, 129:])
    assert not np.array_equal(made, before)


def test_half_a_strength_stays_nearer_to_the_picture(box: Box) -> None:
    photo = spots(5, SIZE)
    given = {"edit_images": [box.upload(photo), box.upload(spots(6, SIZE))]}
    near, far = (
        np.abs(box.pixels(**given, denoising_strength=s) - np.asarray(photo, dtype=float)).mean()
        for s in (0.2, 1.0)
    )
    assert near < far


# --- pictures, sizes, controlnets ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "size"),
    [((256, 256), (256, 256)), ((300, 200), (304, 192)), ((800, 600), (288, 224))],
)
def test_the_result_has_the_shape_of_the_first_picture(
    box: Box, picture: tuple[int, int], size: tuple[int, int]
) -> None:
    refs = [box.upload(spots(1, picture)), box.upload(spots(2, (64, 200)))]
    assert box.pixels(edit_images=refs).shape == (size[1], size[0], 3)


def test_a_chosen_size_of_another_shape_shows_the_whole_picture(box: Box) -> None:
    assert box.pixels(
        edit_images=[box.upload(spots(1, (512, 256)))], width=256, height=320
    ).shape == (320, 256, 3)


def test_2509_and_2511_differ(box: Box, photo: Image.Image) -> None:
    refs = [box.upload(photo)]
    newer, older = (
        box.pixels(edit_images=refs, model=model) for model in ("qwen-demo", "qwen-demo-2509")
    )
    assert not np.array_equal(newer, older)


def test_after_a_controlnet_and_lightning_a_job_is_as_ever(box: Box, photo: Image.Image) -> None:
    given = {"edit_images": [box.upload(photo)]}
    usual = box.pixels(**given)
    mask = box.upload(left_half(SIZE))
    depth = {"controlnet": "depth", "controlnet_image": box.upload(spots(8, (64, 64)))}
    steered = [
        box.pixels(**given, controlnet="canny"),
        box.pixels(**given, controlnet="canny", controlnet_image=box.upload(left_half(SIZE))),
        box.pixels(**given, **depth),
        box.pixels(**given, **depth, controlnet_scale=0.3),
        box.pixels(**given, schedule="lightning"),
        box.pixels(**given, mode="inpaint", inpaint_mask=mask, controlnet="inpaint"),
    ]
    assert np.array_equal(box.pixels(**given), usual)
    assert len({picture.tobytes() for picture in [usual, *steered]}) == len(steered) + 1


def test_the_file_tells_how_it_was_made(box: Box, photo: Image.Image) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(encoded(spots())).decode()}"
    refs = [box.upload(photo), uri]
    path = box.path(edit_images=refs, controlnet="canny", seed=11)
    told = media.read_embedded(path)
    assert told is not None
    assert (told["workflow"], told["seed"], told["model"]) == ("qwen", 11, "qwen-demo")
    digest = hashlib.sha256(uri.encode()).hexdigest()
    assert told["params"]["edit_images"] == [refs[0], f"data:sha256:{digest}"]
    assert told["controlnet"]["id"] == "qwen-demo-canny"
    plain = media.read_embedded(box.path(edit_images=[box.upload(photo)]))
    assert plain is not None and "controlnet" not in plain


def test_stages_are_told_in_order_and_a_cancel_ends_the_job(box: Box, photo: Image.Image) -> None:
    refs = [box.upload(photo)]
    stages: list[Stage] = []

    def note(event: object) -> None:
        assert isinstance(event, Progress)
        stages.append(event.stage)

    assert isinstance(box.end(note, edit_images=refs), Completed)
    order = [stage for stage in dict.fromkeys(stages) if stage is not Stage.LOADING]
    assert order == [Stage.ENCODING, Stage.DENOISING, Stage.DECODING, Stage.SAVING]
    stages.clear()
    end = box.end(note, lambda: Stage.DENOISING in stages, edit_images=refs)
    assert isinstance(end, Cancelled)
    assert Stage.DECODING not in stages


# --- what is refused before anything is loaded ---------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (left_half((256, 300)), "the mask is 256 x 300, the picture 256 x 256"),
        (Image.new("L", SIZE, 0), "nothing to make anew"),
        (Image.new("RGBA", SIZE, (255, 255, 255, 0)), "nothing to make anew"),
    ],
    ids=["shape", "black", "transparent"],
)
def test_a_bad_mask_costs_no_load(idle: Box, mask: Image.Image, said: str) -> None:
    end = failure(
        idle,
        edit_images=[idle.upload(spots(1, SIZE))],
        mode="inpaint",
        inpaint_mask=idle.upload(mask),
    )
    assert end.code == "input_rejected"
    assert end.message.startswith("inpaint_mask: ") and said in end.message


@pytest.mark.parametrize(
    ("picture", "given", "said"),
    [
        ((500, 100), {}, "longer than 4:1: set a size of your own"),
        ((1700, 100), {"resolution": "256x256"}, "longer than 16:1: crop it"),
    ],
)
def test_a_long_and_narrow_picture_costs_no_load(
    idle: Box, picture: tuple[int, int], given: dict[str, Any], said: str
) -> None:
    end = failure(idle, edit_images=[idle.upload(spots(1, picture))], **given)
    assert end.code == "input_rejected" and said in end.message


def test_a_picture_that_is_none_is_named(idle: Box) -> None:
    uri = "data:image/png;base64,aGVsbG8="
    end = failure(idle, edit_images=[idle.upload(spots(1, SIZE)), uri])
    assert end.code == "input_rejected" and end.message.startswith("edit_images: not a picture")


@pytest.mark.parametrize("there", [False, True], ids=["missing", "of another family"])
def test_a_bad_controlnet_costs_no_load(idle: Box, there: bool) -> None:
    base = idle.config.models_dir / "base"
    files = {
        "Qwen/Qwen-Image-Edit-2511/transformer/diffusion_pytorch_model.safetensors": {
            "img_in.weight": (32, 64),
            "transformer_blocks.0.attn.to_q.weight": (32, 32),
        },
        "DiffSynth-Studio/Qwen-Image-Blockwise-ControlNet-Canny/model.safetensors": {
            "double_blocks.0.img_attn.qkv.weight": (96, 32)
        },
    }
    for name, shapes in list(files.items())[: 1 + there]:
        (base / name).parent.mkdir(parents=True)
        tensors = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
        (base / name).write_bytes(save(tensors))
    end = failure(
        idle,
        edit_images=[idle.upload(spots(1, SIZE))],
        controlnet="canny",
        model="qwen-image-edit-2511",
    )
    assert end.code == "model_missing"
    assert ("a controlnet for FLUX" if there else "is not on this machine") in end.message
