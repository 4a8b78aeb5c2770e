"""ffmpeg, imageio's binary, in a process beside us: fed with frames, given metadata, its errors.

Encoding overlaps with decoding, and the video is never whole in our memory. The same frames give
the same bytes, on any machine: nothing depends on its cores, its CPU or the time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import imageio_ffmpeg
from PIL import Image

if TYPE_CHECKING:
    import numpy as np

FASTSTART: Final = ("-movflags", "+faststart+write_colr")
"""An ordinary mp4, whose index stands before the pictures."""

_THREADS: Final = 4
"""x264's pictures depend on how many threads it has; left alone, it takes what the machine has."""

# Without an explicit matrix ffmpeg converts with BT.601 and tells nobody; players then guess. The
# other two come from the frames, which raw video knows nothing of: an option is not enough.
_TO_BT709: Final = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+bitexact,"
    "format=yuv420p,setparams=color_primaries=bt709:color_trc=bt709"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What was fed to the encoder."""

    frames: int
    first_frame: Image.Image


def encode(
    path: Path,
    frames: Iterable[np.ndarray[Any, Any]],
    *,
    size: tuple[int, int],
    fps: int,
    crf: int,
    output: Sequence[str],
) -> Encoded:
    """H.264, yuv420p, BT.709. What is half-written after an error is the caller's to remove.

    Args:
        path: the file to write.
        frames: uint8 (H, W, 3), at least one.
        size: (width, height), both even.
        fps: frames a second.
        crf: H.264 rate factor, 0 to 51.
        output: more inputs, then how the file is written; what is not said is the same always.

    Raises:
        OSError: ENOSPC when the disk is full.
        ValueError: no frame, or one of another shape.
    """
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(fps)]
    x264 = ["-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-threads", str(_THREADS)]
    argv = [*raw, "-i", "pipe:0", *output, "-map", "0:v", "-vf", _TO_BT709, *x264, "-r", str(fps)]
    with _ffmpeg(argv, path, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        try:
            count, first = _feed(encoder.stdin, frames, size)
            if first is None:
                raise ValueError("there is no frame to encode")
        except BaseException:
            encoder.kill()
            _drop(encoder.stdin)
            raise
    return Encoded(frames=count, first_frame=first)


def convert(path: Path, argv: Sequence[str]) -> None:
    """Make the mp4 `path` out of files that `argv` names as inputs.

    Raises:
        OSError: ENOSPC when the disk is full; EIO with ffmpeg's last words.
    """
    with _ffmpeg(argv, path, stdin=subprocess.DEVNULL):
        pass


@contextmanager
def comment(metadata: Mapping[str, Any]) -> Iterator[list[str]]:
    """Arguments of the second input: JSON in the container's comment, where a copy keeps it."""
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    for char in "\\=;#\n":
        text = text.replace(char, f"\\{char}")
    with tempfile.TemporaryDirectory(prefix="diffbox-tags-") as folder:
        tags = Path(folder) / "tags.txt"
        tags.write_text(f";FFMETADATA1\ncomment={text}\n", encoding="utf-8")
        yield ["-f", "ffmetadata", "-i", str(tags), "-map_metadata", "1"]


@contextmanager
def _ffmpeg(argv: Sequence[str], path: Path, *, stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process while it writes `path`; what it could not write is raised at the end."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error"]
    with tempfile.TemporaryFile(prefix="diffbox-ffmpeg-") as log:
        with subprocess.Popen(
            [*command, *argv, "-bitexact", "-f", "mp4", str(path)],
            stdin=stdin,
            stdout=log,
            stderr=log,
        ) as process:
            yield process
        if process.returncode != 0:
            log.seek(0)
            raise _error(log.read().decode("utf-8", errors="replace"), path)


def _feed(
    pipe: IO[bytes], frames: Iterable[np.ndarray[Any, Any]], size: tuple[int, int]
) -> tuple[int, Image.Image | None]:
    """Write all frames; stops early, without an error, if ffmpeg is gone."""
    count, first = 0, None
    try:
        for frame in frames:
            if frame.shape != (size[1], size[0], 3) or frame.dtype != "uint8":
                raise ValueError(f"a frame is {frame.shape} {frame.dtype}, expected {size} uint8")
            if first is None:
                first = Image.fromarray(frame)
            pipe.write(frame.tobytes())
            count += 1
        pipe.flush()
    except BrokenPipeError:
        _drop(pipe)
    return count, first


def _drop(pipe: IO[bytes]) -> None:
    """Close a pipe that nobody reads; what is still buffered is lost, and that is known."""
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _error(log: str, path: Path) -> OSError:
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, "No space left on device", str(path))
    last = log.strip().splitlines()[-3:] or ["no message"]
    return OSError(errno.EIO, f"ffmpeg could not write the video: {' | '.join(last)}", str(path))
