"""Decodes one untrusted picture in a process of its own: `python -I decode_child.py PATH`.

Memory and CPU time are limited, only PNG, JPEG and WebP decoders are open, and the size is
checked before a pixel is decoded (a 20 KiB PNG of 13000 x 13000 would take 400 MB). Answers one
JSON line on stdout, either {"error": …} or {"width", "height", "format"}; with `--pixels` the
RGB bytes follow, with `--mask` one byte a pixel.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import warnings
from collections.abc import Callable
from typing import Final

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

MAX_PIXELS: Final = 36_000_000
MAX_SIDE: Final = 16_384
_MEMORY_BYTES: Final = 2_000_000_000
_CPU_S: Final = 30
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_TAKEN: Final = "PNG, JPEG and WebP pictures are taken"


class _Rejected(Exception):
    pass


def main(argv: list[str]) -> None:
    """Decode argv[0]; with "--pixels" or "--mask" write the pixels as well."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    out = sys.stdout.buffer
    try:
        image, source_format = _open(argv[0], _to_mask if "--mask" in argv else _to_rgb)
        answer = {"width": image.width, "height": image.height, "format": source_format}
        out.write(json.dumps(answer).encode() + b"\n")
        if len(argv) > 1:
            out.write(image.tobytes())
    except _Rejected as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
    except MemoryError:
        out.write(json.dumps({"error": "the picture needs too much memory"}).encode() + b"\n")


def _open(path: str, converted: Callable[[Image.Image], Image.Image]) -> tuple[Image.Image, str]:
    """The picture upright, whole, converted; and its format."""
    too_large = (
        f"the picture is larger than {MAX_PIXELS // 1_000_000} megapixels: scale it down first"
    )
    try:
        with Image.open(path, formats=_FORMATS) as image:
            source_format = str(image.format)
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise _Rejected(f"{image.width} x {image.height}: {too_large}")
            if getattr(image, "n_frames", 1) > 1:
                raise _Rejected("the picture is animated: give one still picture")
            image.load()
            return converted(ImageOps.exif_transpose(image)), source_format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _Rejected(too_large) from None
    except UnidentifiedImageError:
        raise _Rejected(f"not a picture that can be read: {_TAKEN}") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = str(error).split("\n", 1)[0] or "unreadable"
        raise _Rejected(f"the picture is damaged ({reason}): {_TAKEN}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel; transparency on white, as a browser shows it."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_eight_bits(image).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


def _to_mask(image: Image.Image) -> Image.Image:
    """Brightness, eight bits; what is transparent is not painted, so it counts as black."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return ImageChops.multiply(image.convert("RGB").convert("L"), image.getchannel("A"))
    return image.convert("L")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    scale = 1 / 256 if image.mode.startswith("I") else 1.0
    return image.convert("F").point(lambda value: value * scale).convert("L")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent gave up: nobody reads the answer
        main(sys.argv[1:])
