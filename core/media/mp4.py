"""Frames to mp4 as they come: H.264, yuv420p, faststart, BT.709; and the poster beside it.

ffmpeg is imageio's binary and runs beside us, so encoding overlaps with decoding and the video
is never whole in our memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import imageio_ffmpeg
from PIL import Image

if TYPE_CHECKING:
    import numpy as np

POSTER_SIDE: Final = 640


@dataclass(frozen=True, kw_only=True, slots=True)
class Mp4Info:
    """What was written."""

    frames: int
    first_frame: Image.Image

    @property
    def poster_size(self) -> tuple[int, int]:
        """(width, height) of the poster."""
        scale = min(1.0, POSTER_SIDE / max(self.first_frame.size))
        return round(self.first_frame.width * scale), round(self.first_frame.height * scale)


def write_mp4(
    path: Path,
    frames: Iterable[np.ndarray[Any, Any]],
    *,
    size: tuple[int, int],
    fps: int,
    crf: int,
    metadata: Mapping[str, Any],
) -> Mp4Info:
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
    with tempfile.TemporaryDirectory(prefix="diffbox-mp4-") as folder:
        tags = Path(folder) / "tags.txt"
        tags.write_text(_ffmetadata(metadata), encoding="utf-8")
        log_path = Path(folder) / "log.txt"
        with log_path.open("wb") as log:
            encoder = subprocess.Popen(
                _argv(path, tags, size, fps, crf), stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        with encoder:
            try:
                count, first = _feed(encoder, frames, size)
            except BaseException:
                encoder.kill()
                assert encoder.stdin is not None
                _drop(encoder.stdin)
                raise
        if encoder.returncode != 0:
            raise _encoder_error(log_path.read_text(encoding="utf-8", errors="replace"), path)
    if first is None:
        raise ValueError("there is no frame to encode")
    return Mp4Info(frames=count, first_frame=first)


def write_poster(path: Path, info: Mp4Info) -> None:
    """The first frame as WebP, at most 640 pixels on its longer side."""
    info.first_frame.resize(info.poster_size, Image.Resampling.LANCZOS).save(
        path, "WEBP", quality=82, method=4
    )


def _feed(
    encoder: subprocess.Popen[bytes], frames: Iterable[np.ndarray[Any, Any]], size: tuple[int, int]
) -> tuple[int, Image.Image | None]:
    """Write all frames and close the pipe; stops early, without an error, if ffmpeg is gone."""
    assert encoder.stdin is not None
    count, first = 0, None
    try:
        for frame in frames:
            if frame.shape != (size[1], size[0], 3) or frame.dtype != "uint8":
                raise ValueError(f"a frame is {frame.shape} {frame.dtype}, expected {size} uint8")
            if first is None:
                first = Image.fromarray(frame)
            encoder.stdin.write(frame.tobytes())
            count += 1
        encoder.stdin.flush()
    except BrokenPipeError:
        _drop(encoder.stdin)
    return count, first


def _drop(pipe: IO[bytes]) -> None:
    """Close a pipe that nobody reads; what is still buffered is lost, and that is known."""
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _argv(path: Path, tags: Path, size: tuple[int, int], fps: int, crf: int) -> list[str]:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(fps)]
    # Without an explicit matrix ffmpeg converts with BT.601 and tells nobody; players then guess.
    colour = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-y", "-hide_banner", "-loglevel", "error"),
        *(*raw, "-i", "pipe:0"),
        *("-f", "ffmetadata", "-i", str(tags), "-map", "0:v", "-map_metadata", "1"),
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", *colour),
        *("-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-r", str(fps)),
        *("-movflags", "+faststart+write_colr", "-f", "mp4", str(path)),
    ]


def _ffmetadata(metadata: Mapping[str, Any]) -> str:
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    for char in "\\=;#\n":
        text = text.replace(char, f"\\{char}")
    return f";FFMETADATA1\ncomment={text}\n"


def _encoder_error(log: str, path: Path) -> OSError:
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, "No space left on device", str(path))
    last = log.strip().splitlines()[-3:] or ["no message"]
    return OSError(errno.EIO, f"ffmpeg could not write the video: {' | '.join(last)}", str(path))
