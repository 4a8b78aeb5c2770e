"""Sizes of `qwen`: what can be chosen, and what follows from the pictures."""

from __future__ import annotations

import math
from typing import Final, Literal

from core.workflows.params import Grid

SIDE: Final = Grid(step=16, offset=0, low=256, high=2048)
MAX_RATIO: Final = 4
"""Longer side by shorter side of a result whose shape follows from a picture."""
MAX_SEEN_RATIO: Final = 16
"""The same of a picture that is looked at."""
_ALIGNED: Final = 0.04
"""How much of a picture may be cut off so that it still stands for the result's shape."""

Resolution = Literal[
    "auto",
    "1024x1024",
    "1328x1328",
    "928x1664",
    "1664x928",
    "1104x1472",
    "1472x1104",
    "512x512",
    "256x256",
    "custom",
]
# Named height x width, as Wan's are; Qwen Image's own sizes; the value is (width, height).
SIZES: Final[dict[str, tuple[int, int]]] = {
    "1024x1024": (1024, 1024),
    "1328x1328": (1328, 1328),
    "928x1664": (1664, 928),
    "1664x928": (928, 1664),
    "1104x1472": (1472, 1104),
    "1472x1104": (1104, 1472),
    "512x512": (512, 512),
    "256x256": (256, 256),
}
SIZE_LABELS: Final[dict[str, str]] = {
    "auto": "As the first picture",
    "1024x1024": "1024 × 1024 square",
    "1328x1328": "1328 × 1328 square, large",
    "928x1664": "1664 × 928 landscape 16:9",
    "1664x928": "928 × 1664 portrait 9:16",
    "1104x1472": "1472 × 1104 landscape 4:3",
    "1472x1104": "1104 × 1472 portrait 3:4",
    "512x512": "512 × 512 square, small",
    "256x256": "256 × 256 square, tiny",
    "custom": "Custom size",
}


def auto_size(picture: tuple[int, int], area: int) -> tuple[int, int]:
    """The result's (width, height) when it follows from the first picture.

    From half to one and a half of the model's area a picture keeps its size, others are scaled to
    that area; then each side is brought to the nearest multiple of 16.

    Args:
        picture: (width, height).
        area: pixels that the model was trained on.

    Raises:
        ValueError: the picture is too long and narrow.
    """
    width, height = picture
    _check_ratio(picture, MAX_RATIO, "set a size of your own")
    near = area / 2 <= width * height <= area * 3 / 2
    scale = 1.0 if near else math.sqrt(area / (width * height))
    step = SIDE.step
    return round(width * scale / step) * step, round(height * scale / step) * step


def seen_size(picture: tuple[int, int], area: int) -> tuple[int, int]:
    """The (width, height) in which the model looks at a picture that is not the result's base.

    As DiffSynth's edit_image_auto_resize does it: the picture's shape at the model's area, each
    side the nearest multiple of 32.

    Raises:
        ValueError: the picture is too long and narrow.
    """
    _check_ratio(picture, MAX_SEEN_RATIO, "crop it")
    width = math.sqrt(area * picture[0] / picture[1])
    height = width * picture[1] / picture[0]
    return max(1, round(width / 32)) * 32, max(1, round(height / 32)) * 32


def is_aligned(picture: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a picture has the shape of `size`, but for what rounding to multiples takes."""
    shapes = sorted((picture[0] / picture[1], size[0] / size[1]))
    return shapes[1] / shapes[0] - 1 <= _ALIGNED


def _check_ratio(picture: tuple[int, int], most: int, advice: str) -> None:
    if max(picture) > most * min(picture):
        raise ValueError(
            f"the picture is {picture[0]} x {picture[1]}, longer than {most}:1: {advice}"
        )
