"""Pictures and videos made for tests: good ones and every kind of bad one."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from core.media import write_mp4


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    """Red grows to the right, green downwards: orientation and colour can be read back."""
    red = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 40)], -1).astype(np.uint8))


def encoded(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    """The picture's file."""
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side x side 1-bit pixels in some KiB, without ever holding them."""
    row = b"\0" * (1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
        for kind, payload in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def half(content: bytes) -> bytes:
    """The first half of a file, as a broken transfer leaves it."""
    return content[: len(content) // 2]


def animated() -> bytes:
    """A WebP of three frames."""
    frames = [gradient(), gradient(96, 64).rotate(180), gradient()]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


BAD: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "not an image": (lambda: b"hello, I am text", "not a picture that can be read"),
    "truncated": (lambda: encoded(gradient(), "JPEG")[:-400], "damaged"),
    "truncated png": (lambda: half(encoded(Image.effect_noise((64, 64), 80))), "damaged"),
    "empty": (lambda: b"", "not a picture that can be read"),
    "animated": (animated, "animated"),
    "gif": (lambda: encoded(gradient(), "GIF"), "not a picture that can be read"),
    "bomb of 13000": (lambda: bomb(13_000), "megapixels"),
    "bomb of 20000": (lambda: bomb(20_000), "megapixels"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
}
"""Bytes that are refused, and what the message says."""


def moving(start: int, count: int, size: tuple[int, int]) -> Iterator[np.ndarray[Any, Any]]:
    """Frames `start` to `start + count` of a video in which all that is seen moves."""
    array = np.asarray(gradient(*size))
    for index in range(start, start + count):
        yield np.roll(array, 4 * index, 1)


def video(path: Path, frames: int = 9, size: tuple[int, int] = (96, 64), fps: int = 8) -> Path:
    """A small mp4."""
    array = np.asarray(gradient(*size))
    write_mp4(path, (array for _ in range(frames)), size=size, fps=fps, crf=20, metadata={})
    return path
