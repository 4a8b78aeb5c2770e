"""Pictures: what is taken, how it is turned into upright RGB, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import InputRejected
from core.media import fitted, probe, read_image
from tests.support.pictures import BAD, encoded, gradient


def read(tmp_path: Path, content: bytes) -> Image.Image:
    path = tmp_path / "in"
    path.write_bytes(content)
    return read_image(path, field="input_image")


def near(image: Image.Image, expected: Image.Image, tolerance: int = 6) -> bool:
    if image.size != expected.size or image.mode != "RGB":
        return False
    gap = np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16))
    return bool(np.percentile(gap, 95) <= tolerance)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_taken(tmp_path: Path, fmt: str) -> None:
    options = {} if fmt == "PNG" else {"quality": 95}
    assert near(read(tmp_path, encoded(gradient(), fmt, **options)), gradient())


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    content = encoded(gradient().convert("CMYK"), "JPEG", quality=95)
    assert near(read(tmp_path, content), gradient(), 12)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    grey = gradient().convert("L")
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    assert near(read(tmp_path, encoded(deep)), grey.convert("RGB"), 2)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert read(tmp_path, encoded(clear)).getpixel((5, 5)) == (255, 255, 255)


def test_a_rotated_photo_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right by 90 degrees when shown
    turned = gradient().transpose(Image.Transpose.ROTATE_90)
    content = encoded(turned, "JPEG", quality=95, exif=exif)
    assert near(read(tmp_path, content), gradient())


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused_at_their_field(tmp_path: Path, name: str) -> None:
    make, said = BAD[name]
    with pytest.raises(InputRejected, match=said) as caught:
        read(tmp_path, make())
    assert caught.value.problems[0].field == "input_image"


@pytest.mark.parametrize("name", BAD)
def test_bad_uploads_are_refused_by_probe(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(BAD[name][0]())
    with pytest.raises(InputRejected):
        probe(path)


def test_probe_tells_what_a_picture_is(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(encoded(gradient(), "WEBP"))
    found = probe(path)
    assert (found.kind, found.media_type, found.width, found.height) == (
        "image",
        "image/webp",
        96,
        64,
    )


def test_crop_fills_the_size_without_stretching() -> None:
    square = fitted(gradient(96, 64), (64, 64), "crop")
    assert square.size == (64, 64)
    left, right = square.getpixel((0, 32)), square.getpixel((63, 32))
    assert left[0] > 30  # type: ignore[index]  # the outer columns are gone
    assert right[0] < 225  # type: ignore[index]


def test_pad_keeps_everything_and_adds_black() -> None:
    square = fitted(gradient(96, 64), (96, 96), "pad")
    assert square.getpixel((50, 2)) == (0, 0, 0)
    assert np.array_equal(np.asarray(square)[16:80], np.asarray(gradient(96, 64)))
