"""Videos as input: read by ffmpeg in its own process, scaled and cut there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
from PIL import Image

from core.media.images import Fit, rejected

# The demuxer is named, so that a playlist in disguise can't make ffmpeg open other files or URLs.
_DEMUXERS: Final = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
}
MAX_PIXELS: Final = 4096 * 2304
TAKEN: Final = "MP4, MOV, WebM and MKV videos are taken"


def sniff_video(head: bytes) -> str | None:
    """The media type by the first bytes (at least 64 of them), None if it is no video of ours."""
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    return None


def probe_video(path: Path, media_type: str, *, field: str) -> tuple[int, int, float]:
    """(width, height, seconds) of an untrusted video.

    Raises:
        InputRejected: damaged, without a picture, or larger than 4096 x 2304.
    """
    with _reading(path, media_type, field, []) as (header, _):
        width, height = header["source_size"]
        if width * height > MAX_PIXELS:
            raise rejected(field, f"the video is {width} x {height}; 4096 x 2304 is the most")
        return int(width), int(height), float(header["duration"])


def read_video(
    path: Path, *, field: str, size: tuple[int, int], fit: Fit, frames: int
) -> list[Image.Image]:
    """The first `frames` frames at `size` (width, height), RGB.

    Raises:
        InputRejected: not a video that we take, damaged, or too short.
    """
    with path.open("rb") as file:
        media_type = sniff_video(file.read(64))
    if media_type is None:
        raise rejected(field, f"not a video that can be read: {TAKEN}")
    width, height = size
    keep = "increase" if fit == "crop" else "decrease"
    cut = f"crop={width}:{height}" if fit == "crop" else f"pad={width}:{height}:-1:-1"
    scale = f"scale={width}:{height}:force_original_aspect_ratio={keep}:flags=lanczos"
    options = ["-vf", f"{scale},{cut}", "-frames:v", str(frames)]
    with _reading(path, media_type, field, options, size) as (_, pictures):
        read = [Image.frombytes("RGB", size, picture) for picture in pictures]
    if len(read) < frames:
        raise rejected(field, f"the video has {len(read)} frames; {frames} are needed")
    return read


@contextlib.contextmanager
def _reading(
    path: Path, media_type: str, field: str, options: list[str], size: tuple[int, int] | None = None
) -> Iterator[tuple[dict[str, Any], Iterator[bytes]]]:
    reader: Any = imageio_ffmpeg.read_frames(
        str(path),
        input_params=["-f", _DEMUXERS[media_type], "-protocol_whitelist", "file"],
        output_params=options,
        bits_per_pixel=24,
    )
    try:
        try:
            header = next(reader)
        except (OSError, RuntimeError, StopIteration, IndexError, KeyError, ValueError):
            raise rejected(field, f"the video is damaged or has no picture: {TAKEN}") from None
        if size and tuple(header["size"]) != size:
            raise rejected(field, f"the video could not be scaled to {size[0]} x {size[1]}")
        yield header, reader
    finally:
        reader.close()
