"""What an uploaded file is: by its bytes, never by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.media.images import probe_image, rejected
from core.media.video import TAKEN, probe_video, sniff_video


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaProbe:
    """A checked file. Sizes are of the upright picture; `seconds` only for videos."""

    kind: Literal["image", "video"]
    media_type: str
    width: int
    height: int
    seconds: float | None = None


def probe(path: Path, *, field: str = "") -> MediaProbe:
    """Decode a file far enough to be sure of it. Blocks; call it in a thread.

    Raises:
        InputRejected: empty, unknown, damaged, animated, too large.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise rejected(field, "the file is empty")
    if media_type := sniff_video(head):
        width, height, seconds = probe_video(path, media_type, field=field)
        return MediaProbe(
            kind="video", media_type=media_type, width=width, height=height, seconds=seconds
        )
    media_type = sniff_image(head)
    if media_type is None:
        raise rejected(field, f"not a PNG, JPEG or WebP picture, nor a video: {TAKEN}")
    width, height = probe_image(path, field=field)
    return MediaProbe(kind="image", media_type=media_type, width=width, height=height)


def sniff_image(head: bytes) -> str | None:
    """The media type by the first 16 bytes, None if it is no picture of ours."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None
