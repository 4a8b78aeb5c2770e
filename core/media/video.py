"""Videos as input: read by ffmpeg in its own process, scaled and cut there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

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
MAX_WIDTH: Final = 4096
MAX_HEIGHT: Final = 4096
TAKEN: Final = "MP4, MOV, WebM and MKV videos are taken"
_DAMAGED: Final = f"the video is damaged or has no picture: {TAKEN}"
_TIMEOUT_S: Final = 300


def sniff_video(head: bytes) -> str | None:
    """The media type by the first bytes (at least 64 of them), None if it is no video of ours."""
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    return None


def probe_video(path: Path, media_type: str, *, field: str) -> tuple[int, int, float]:
    """(width, height, seconds) of an untrusted video, whose first frame was decoded.

    Raises:
        InputRejected: damaged, without a picture, or larger than 4096 x 4096.
    """
    first_frame = ["-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"]
    _, told = _ffmpeg(path, media_type, field, first_frame)
    size = re.search(r"Video: .*?\b(\d{2,5})x(\d{2,5})\b", told)
    duration = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", told)
    if not size or not duration:
        raise rejected(field, _DAMAGED)
    width, height = int(size[1]), int(size[2])
    if width > MAX_WIDTH or height > MAX_HEIGHT:
        limit = f"{MAX_WIDTH} x {MAX_HEIGHT}"
        raise rejected(field, f"the video is {width} x {height}; at most {limit} is taken")
    hours, minutes, seconds = (float(part) for part in duration.groups())
    return width, height, hours * 3600 + minutes * 60 + seconds


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
    output = ["-map", "0:v:0", "-vf", f"{scale},{cut}", "-frames:v", str(frames)]
    pixels, _ = _ffmpeg(
        path, media_type, field, [*output, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    )
    step = width * height * 3
    found = len(pixels) // step
    if found < frames:
        raise rejected(field, f"the video has {found} frames; {frames} are needed")
    view = memoryview(pixels)
    return [
        Image.frombytes("RGB", size, bytes(view[i * step : (i + 1) * step])) for i in range(frames)
    ]


def _ffmpeg(path: Path, media_type: str, field: str, output: list[str]) -> tuple[bytes, str]:
    """Run ffmpeg over one input; what it wrote and what it told."""
    source = ["-f", _DEMUXERS[media_type], "-protocol_whitelist", "file,pipe", "-i", str(path)]
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *source, *output]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise rejected(field, "the video takes too long to read") from None
    if done.returncode != 0:
        raise rejected(field, _DAMAGED)
    return done.stdout, done.stderr.decode("utf-8", errors="replace")
