"""Frames to mp4 as they come: H.264, yuv420p, faststart, BT.709; and the poster beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from core.media.ffmpeg import FASTSTART, Encoded, comment, encode

if TYPE_CHECKING:
    import numpy as np

POSTER_SIDE: Final = 640
"""Longest side of a poster in pixels: what a wall or a queue shows in place of the output."""


def write_mp4(
    path: Path,
    frames: Iterable[np.ndarray[Any, Any]],
    *,
    size: tuple[int, int],
    fps: int,
    crf: int,
    metadata: Mapping[str, Any],
) -> Encoded:
    """Encode frames into `path`; what is half-written after an error is the caller's to remove.

    Args:
        path: ends in .mp4.
        frames: uint8 (H, W, 3), at least one.
        size: (width, height), both even.
        fps: frames a second.
        crf: H.264 rate factor, 0 to 51.
        metadata: goes as JSON into the container's comment, where a copy keeps it.

    Raises:
        OSError: ENOSPC when the disk is full.
        ValueError: no frame, or one of another shape.
    """
    with comment(metadata) as tags:
        return encode(path, frames, size=size, fps=fps, crf=crf, output=[*tags, *FASTSTART])


def write_poster(path: Path, first_frame: Image.Image) -> tuple[int, int]:
    """The first frame as WebP, at most 640 pixels on its longer side; its (width, height)."""
    scale = min(1.0, POSTER_SIDE / max(first_frame.size))
    size = (round(first_frame.width * scale), round(first_frame.height * scale))
    first_frame.resize(size, Image.Resampling.LANCZOS).save(path, "WEBP", quality=82, method=4)
    return size
