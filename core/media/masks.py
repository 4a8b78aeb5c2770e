"""Masks for inpainting: white is made anew, black stays; brought to the picture, and put to use.

    mask ──fit like the picture──> weights ──feather──> blend(picture, result, weights)
                                      └── largest of each 8 x 8 cell ──> what the model is given

A weight is a byte: 0 keeps the picture's pixel to the bit, 255 takes the new one, and what is
between is blended.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from core.media.images import Fit, rejected

CELL: Final = 8
"""Pixels of a latent's side."""
SHAPE_TOLERANCE: Final = 0.02
_PAINTED: Final = 128
"""From this brightness on a pixel belongs to the area round which the feather lies."""


def fitted_mask(
    mask: Image.Image, picture: Image.Image, size: tuple[int, int], fit: Fit, *, field: str
) -> Image.Image:
    """The mask brought to `size` (width, height) just as `fitted` brings the picture.

    Args:
        mask: L, of any size.
        picture: at its own size.
        size: of the result.
        fit: what happens to a picture of another shape; padding stays.
        field: which parameter the mask came from.

    Raises:
        InputRejected: its shape differs from the picture's by more than 2 %, or there is nothing
            white in it.
    """
    shape, wanted = mask.width / mask.height, picture.width / picture.height
    if abs(shape / wanted - 1) > SHAPE_TOLERANCE:
        raise rejected(
            field,
            f"the mask is {mask.width} x {mask.height}, the picture {picture.width} x "
            f"{picture.height}: make the mask in the picture's shape",
        )
    if not mask.getbbox():
        raise rejected(
            field,
            "the mask is black everywhere, so there is nothing to make anew: paint in white what "
            "shall change",
        )
    # No Lanczos as for pictures: it rings, and would leave faint weights beside the white.
    soft = Image.Resampling.BILINEAR
    fitting = mask if mask.size == picture.size else mask.resize(picture.size, soft)
    if fitting.size != size:
        pad = fit == "pad"
        fitting = (
            ImageOps.pad(fitting, size, soft, color=0) if pad else ImageOps.fit(fitting, size, soft)
        )
    if not fitting.getbbox():
        raise rejected(
            field,
            f"what is white in the mask is cut off where the picture is brought to {size[0]} x "
            f"{size[1]}: pad instead of cropping, or leave the resolution to the picture",
        )
    return fitting


def feathered(mask: Image.Image, feather: int) -> Image.Image:
    """The mask with a soft edge outside of it: `feather` pixels in which its weight falls to 0."""
    if not feather:
        return mask
    import cv2  # noqa: PLC0415  # 30 MB that only some jobs need

    weights = np.asarray(mask)
    outside = (weights < _PAINTED).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    slope = np.clip(1 - distance / (feather + 1), 0, 1) * 255
    edge = np.where(outside.all(), 0, slope).astype(np.uint8)
    return Image.fromarray(np.maximum(weights, edge))


def cells(mask: Image.Image) -> Image.Image:
    """One pixel a latent: the largest weight of its 8 x 8 pixels, so that thin strokes count."""
    weights = np.asarray(mask)
    rows, columns = weights.shape[0] // CELL, weights.shape[1] // CELL
    return Image.fromarray(weights.reshape(rows, CELL, columns, CELL).max(axis=(1, 3)))


def blend(picture: Image.Image, result: Image.Image, mask: Image.Image) -> Image.Image:
    """The result where the mask is white, the picture where it is black, exactly.

    Args:
        picture: RGB.
        result: RGB of the same size.
        mask: L of the same size.
    """
    weights = np.asarray(mask, dtype=np.uint32)[..., None]
    kept: npt.NDArray[np.uint32] = np.asarray(picture, dtype=np.uint32) * (255 - weights)
    made: npt.NDArray[np.uint32] = np.asarray(result, dtype=np.uint32) * weights
    return Image.fromarray(((kept + made + 127) // 255).astype(np.uint8))
