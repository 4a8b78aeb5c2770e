"""Still pictures: read safely in a child process, brought to size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image, ImageOps

from core.errors import InputRejected, Problem

Fit = Literal["crop", "pad"]

_DECODE_TIMEOUT_S: Final = 60
_CHILD: Final = Path(__file__).with_name("decode_child.py")


def read_image(path: Path, *, field: str) -> Image.Image:
    """An untrusted picture as RGB, upright, transparency on white.

    Raises:
        InputRejected: not a PNG, JPEG or WebP; damaged, animated, or over 36 megapixels.
    """
    return _read(path, field, "--pixels", "RGB")


def read_mask(path: Path, *, field: str) -> Image.Image:
    """An untrusted mask as L, upright: any mode, its brightness times its opacity.

    Raises:
        InputRejected: as `read_image`.
    """
    return _read(path, field, "--mask", "L")


def probe_image(path: Path, *, field: str) -> tuple[int, int]:
    """(width, height) of an untrusted picture, upright; it is decoded whole to be sure.

    Raises:
        InputRejected: as `read_image`.
    """
    header, _ = _decode(path, field)
    return header["width"], header["height"]


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """The picture at `size` (width, height), cropped or padded with black, never stretched."""
    if image.size == size:
        return image
    if fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color="black")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def rejected(field: str, message: str) -> InputRejected:
    """InputRejected that names its field."""
    message = f"{field}: {message}" if field else message
    return InputRejected(message, problems=(Problem(field=field, message=message),))


def _read(path: Path, field: str, flag: str, mode: Literal["RGB", "L"]) -> Image.Image:
    header, pixels = _decode(path, field, flag)
    size = (header["width"], header["height"])
    if len(pixels) != size[0] * size[1] * len(mode):
        raise rejected(field, "the picture can't be decoded within 2 GB and 30 s")
    return Image.frombytes(mode, size, pixels)


def _decode(path: Path, field: str, *flags: str) -> tuple[dict[str, Any], bytes]:
    # By path and isolated, so that the child imports Pillow and nothing else of ours.
    argv = [sys.executable, "-I", str(_CHILD), str(path), *flags]
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DECODE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise rejected(field, "the picture takes too long to decode") from None
    line, _, pixels = done.stdout.partition(b"\n")
    if not line:  # killed by its limits: memory or CPU time
        raise rejected(field, "the picture can't be decoded within 2 GB and 30 s")
    header: dict[str, Any] = json.loads(line)
    if "error" in header:
        raise rejected(field, header["error"])
    return header, pixels
