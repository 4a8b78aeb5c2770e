"""Masks: any file, fitted like the picture, a soft edge outside, and nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from core.errors import InputRejected
from core.media.images import Fit, fitted, read_mask
from core.media.masks import blend, cells, feathered, fitted_mask
from tests.support.pictures import gradient

FIELD = "inpaint_mask"


def square(size: tuple[int, int] = (64, 64), box: tuple[int, ...] = (16, 24, 40, 48)) -> Any:
    """A mask with one white rectangle; `box` is left, top, right, bottom."""
    mask = Image.new("L", size, 0)
    mask.paste(255, box)  # type: ignore[arg-type]
    return mask


def rgba(opacity: int) -> Image.Image:
    """White strokes on nothing, as a page's canvas gives them."""
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    picture.paste((255, 255, 255, opacity), (16, 24, 40, 48))
    return picture


def palette(transparent: bool) -> tuple[Image.Image, dict[str, Any]]:
    picture = square().convert("P")
    options = {"transparency": picture.getpixel((0, 0))} if transparent else {}
    return picture, options


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(square()).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (square(), {}),
        (square().convert("1"), {}),
        (square().convert("RGB"), {}),
        (rgba(255), {}),
        (Image.merge("LA", (square(), square())), {}),
        palette(False),
        palette(True),
        (sixteen_bits(), {}),
    ],
    ids=["L", "1", "RGB", "RGBA", "LA", "P", "P transparent", "16 bit"],
)
def test_a_mask_of_any_mode_says_the_same(
    tmp_path: Path, picture: Image.Image, options: dict[str, Any]
) -> None:
    path = tmp_path / "mask.png"
    picture.save(path, **options)
    mask = read_mask(path, field=FIELD)
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), np.asarray(square()))


def test_half_opaque_counts_half_and_transparent_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    rgba(128).save(path)
    mask = read_mask(path, field=FIELD)
    assert mask.getextrema() == (0, 128)
    assert mask.getbbox() == (16, 24, 40, 48)


def test_no_mask_is_refused_at_its_field(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(b"hello")
    with pytest.raises(InputRejected, match="inpaint_mask: not a picture") as caught:
        read_mask(path, field=FIELD)
    assert caught.value.problems[0].field == FIELD


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("mask_size", [(96, 64), (480, 320), (31, 21)])
def test_a_mask_is_fitted_like_the_picture(fit: Fit, mask_size: tuple[int, int]) -> None:
    picture = Image.new("RGB", (96, 64), "black")
    picture.paste("white", (48, 0, 96, 64))
    mask = picture.convert("L").resize(mask_size, Image.Resampling.NEAREST)
    ours = fitted_mask(mask, picture, (64, 64), fit, field=FIELD)
    theirs = fitted(picture, (64, 64), fit).convert("L")
    same = (np.asarray(ours) >= 128) == (np.asarray(theirs) >= 128)
    assert ours.size == (64, 64)
    assert same.mean() > 0.95


def test_at_the_same_size_it_is_left_as_it_is() -> None:
    mask = square()
    assert fitted_mask(mask, gradient(64, 64), (64, 64), "crop", field=FIELD) is mask


def test_fitting_leaves_no_faint_weights_beside_the_white() -> None:
    mask = square((512, 512), (128, 128, 256, 256))
    weights = np.asarray(fitted_mask(mask, gradient(96, 96), (64, 64), "crop", field=FIELD))
    assert not weights[:14].any() and not weights[34:].any()


@pytest.mark.parametrize("size", [(64, 66), (63, 64), (128, 128)])
def test_two_percent_of_shape_are_forgiven(size: tuple[int, int]) -> None:
    mask = Image.new("L", size, 255)
    picture = gradient(640, 650) if size == (64, 66) else gradient(640, 640)
    assert fitted_mask(mask, picture, (64, 64), "crop", field=FIELD).size == (64, 64)


def refusal(mask: Image.Image, picture: Image.Image, fit: Fit = "crop") -> str:
    with pytest.raises(InputRejected) as caught:
        fitted_mask(mask, picture, (64, 64), fit, field=FIELD)
    assert caught.value.problems[0].field == FIELD
    return caught.value.message


def test_a_mask_of_another_shape_is_refused_with_both_sizes() -> None:
    said = refusal(square((64, 96), (0, 0, 9, 9)), gradient(640, 480))
    assert "the mask is 64 x 96, the picture 640 x 480" in said


def test_a_black_mask_is_refused() -> None:
    assert "nothing to make anew" in refusal(Image.new("L", (64, 64), 0), gradient(64, 64))


def test_a_mask_whose_white_is_cut_off_is_refused() -> None:
    edge = square((256, 64), (0, 0, 20, 64))
    assert "is cut off" in refusal(edge, gradient(256, 64))
    assert fitted_mask(edge, gradient(256, 64), (64, 64), "pad", field=FIELD).getbbox()


@pytest.mark.parametrize("feather", [1, 8, 20])
def test_the_soft_edge_lies_outside_and_is_as_wide_as_told(feather: int) -> None:
    mask = square((128, 128), (48, 48, 80, 80))
    weights = np.asarray(feathered(mask, feather)).astype(int)
    inside = np.asarray(mask) == 255
    assert (weights[inside] == 255).all()
    row = weights[64]
    band = row[80 : 80 + feather]
    assert (band > 0).all() and (band < 255).all()
    assert (np.diff(row[79 : 81 + feather]) < 0).all()
    assert not row[80 + feather :].any()


def test_no_feather_changes_nothing_and_grey_stays_grey() -> None:
    mask = square()
    assert feathered(mask, 0) is mask
    grey = Image.new("L", (32, 32), 40)
    assert feathered(grey, 8).getextrema() == (40, 40)


def test_a_thin_stroke_counts_in_every_latent_that_it_touches() -> None:
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).line((0, 20, 63, 20), fill=255, width=1)
    latents = np.asarray(cells(mask))
    assert latents.shape == (8, 8)
    assert (latents[2] == 255).all()
    assert not np.delete(latents, 2, axis=0).any()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_blending_is_exact_at_both_ends_and_between_them_otherwise(
    old: int, new: int, weight: int
) -> None:
    picture, result = (Image.new("RGB", (1, 1), (value,) * 3) for value in (old, new))
    value = np.asarray(blend(picture, result, Image.new("L", (1, 1), weight)))[0, 0, 0]
    assert min(old, new) <= value <= max(old, new)
    if weight in (0, 255):
        assert value == (old if weight == 0 else new)
