"""PNG, pixel by pixel as it is, with metadata in a text chunk of its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KEYWORD: Final = "diffbox"
_MOST: Final = 1 << 20
"""Metadata of ours is some kilobytes; what claims to be larger than this is not read."""


def write_png(path: Path, image: Image.Image, *, metadata: Mapping[str, Any]) -> None:
    """Write a picture; `metadata` goes as JSON into an iTXt chunk before the pixels."""
    text = PngInfo()
    text.add_itxt(_KEYWORD, json.dumps(metadata, ensure_ascii=False, separators=(",", ":")))
    image.save(path, "PNG", pnginfo=text)


def read_text(path: Path) -> str:
    """The text of our chunk, "" where there is none. No pixel is decoded.

    PNG specification, section 11.3.4.5: keyword, NUL, compressed?, method, language, NUL,
    translated keyword, NUL, text.
    """
    wanted = _KEYWORD.encode() + b"\0\0\0\0\0"  # uncompressed, in no language
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return ""
        while (chunk := _chunk(file)) is not None:
            if chunk.startswith(wanted):
                return chunk[len(wanted) :].decode("utf-8", errors="replace")
    return ""


def _chunk(file: IO[bytes]) -> bytes | None:
    """The next chunk's content if it is text of a sensible size, else b""; None at the pixels."""
    head = file.read(8)
    if len(head) < 8 or head[4:] in {b"IDAT", b"IEND"}:
        return None
    size = struct.unpack(">I", head[:4])[0]
    content = b""
    if head[4:] == b"iTXt" and size <= _MOST:
        content = file.read(size)
    else:
        file.seek(size, 1)
    file.seek(4, 1)  # its checksum
    return content
