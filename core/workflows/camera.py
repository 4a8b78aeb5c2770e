"""A camera's path as parameters: a direction, a speed, and the pose that it starts from."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

CameraDirection = Literal[
    "none",
    "left",
    "right",
    "up",
    "down",
    "left_up",
    "left_down",
    "right_up",
    "right_down",
    "in",
    "out",
]
CAMERA_LABELS: Final[dict[str, str]] = {
    "none": "Stands still",
    "left": "Left",
    "right": "Right",
    "up": "Up",
    "down": "Down",
    "left_up": "Left and up",
    "left_down": "Left and down",
    "right_up": "Right and up",
    "right_down": "Right and down",
    "in": "In",
    "out": "Out",
}
ORIGIN: Final = "0,0.532139961,0.946026558,0.5,0.5,0,0,1,0,0,0,0,1,0,0,0,0,1,0"
"""A frame's number, fx, fy, cx, cy, two zeros, then the 3 x 4 matrix from world to camera."""
_NUMBERS: Final = 19
_LEAST_VOLUME: Final = 1e-6


def origin_text(value: Any) -> Any:
    """A list of numbers as it is kept: as text; anything else as it is."""
    if isinstance(value, list | tuple) and all(isinstance(n, int | float) for n in value):
        return ",".join(_shown(float(number)) for number in value)
    return value


def checked_origin(text: str) -> str:
    """The same pose, written in one way.

    Raises:
        ValueError: not 19 numbers, or no camera can have this pose; says why.
    """
    numbers = pose(text)
    if len(numbers) != _NUMBERS:
        raise ValueError(
            f"camera_origin has {len(numbers)} numbers; it must be {_NUMBERS}: a frame's number, "
            "fx, fy, cx, cy, 0, 0, then 12 of the matrix from world to camera"
        )
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"camera_origin={text!r} must be finite numbers")
    if min(numbers[1:3]) <= 0:
        raise ValueError(f"camera_origin: fx={numbers[1]:g} and fy={numbers[2]:g} must be above 0")
    if abs(_volume(numbers[7:])) < _LEAST_VOLUME:
        raise ValueError("camera_origin: the matrix from world to camera must have an inverse")
    return ",".join(_shown(number) for number in numbers)


def pose(text: str) -> tuple[float, ...]:
    """The numbers of a pose.

    Raises:
        ValueError: something between the commas is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"camera_origin={text[:80]!r} must be numbers with commas") from None


def _volume(matrix: tuple[float, ...]) -> float:
    """Determinant of the left 3 x 3 of a 3 x 4 matrix."""
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = matrix[0:4], matrix[4:8], matrix[8:12]
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _shown(number: float) -> str:
    return repr(number).removesuffix(".0")
