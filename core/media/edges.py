"""Edges of a picture, as the Canny controlnet was trained on them."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

LOW: Final = 100
HIGH: Final = 200
"""Thresholds of DiffSynth's annotator, which is controlnet_aux's CannyDetector by default."""


def canny(picture: Image.Image) -> Image.Image:
    """White edges on black, RGB, of the picture's size."""
    import cv2  # noqa: PLC0415  # 30 MB that only some jobs need

    edges = cv2.Canny(np.asarray(picture.convert("RGB")), LOW, HIGH)
    return Image.fromarray(edges).convert("RGB")
