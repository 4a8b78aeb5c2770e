"""Uploads: input files, streamed to disk, checked, and kept once by their sha256.

    bytes ──> .<random>.partial ──probe──> <sha256>.json (what it is), then <sha256> (the file)

The workers read `<sha256>`; the sidecar is ours. A file without one is what a worker fetched for
a job; it counts as not uploaded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core import media
from core.errors import InputRejected
from core.media.images import rejected
from core.media.probe import sniff_image
from core.media.video import TAKEN, sniff_video
from core.storage import storage_failed

log = logging.getLogger(__name__)
T = TypeVar("T")

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SNIFF_BYTES: Final = 64
_WRITE_BYTES: Final = 1 << 20
"""What is written in one go: a trip to a thread costs as much as 100 kB."""
_FILENAME_MAX: Final = 200
_OURS: Final = re.compile(r"\.[0-9a-f]{16}\.(partial|json)")
_FETCH_MAX_S: Final = 3600.0
"""A worker that fetches a file has written to it within this time."""


class TooLarge(InputRejected):
    """A request or file over its limit."""

    http_status = 413


class Upload(BaseModel):
    """A kept input file. `filename` is what its sender called it, cleaned."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: str
    kind: Literal["image", "video"]
    media_type: str
    width: int
    height: int
    size_bytes: int
    filename: str = ""

    @property
    def ref(self) -> str:
        """What goes into a job's params."""
        return f"upload:{self.sha256}"


class Uploads:
    """The folder of input files.

    Args:
        folder: made on first use.
        image_max_bytes: largest picture.
        video_max_bytes: largest video.
    """

    def __init__(self, folder: Path, *, image_max_bytes: int, video_max_bytes: int) -> None:
        self._folder = folder
        self._limits = {"image": image_max_bytes, "video": video_max_bytes}
        self._began = time.time()

    @property
    def max_bytes(self) -> int:
        """The largest file of any kind."""
        return max(self._limits.values())

    def limit(self, kind: str) -> int:
        """Bytes of the largest "image" or "video"."""
        return self._limits[kind]

    def path(self, sha256: str) -> Path:
        """Where the file is, or would be."""
        return self._folder / sha256

    def sweep(self) -> None:
        """Delete what a process that died in the middle of an upload or fetch has left here."""
        try:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                ours = _OURS.fullmatch(path.name) is not None
                before = self._began - (0 if ours else _FETCH_MAX_S)
                if (ours or path.suffix == ".partial") and path.stat().st_mtime < before:
                    path.unlink()
        except OSError as error:  # a worker may have been quicker; it is only tidying
            log.warning("leftovers of uploads stay in %s: %s", self._folder, error)

    async def add(self, chunks: AsyncIterable[bytes], *, filename: str = "") -> Upload:
        """Keep a file that arrives in pieces; the same file twice is kept once.

        Raises:
            TooLarge: over the limit of its kind; nothing is left on disk.
            InputRejected: not a picture or video that we take.
            StorageFailed: the disk is full.
        """
        partial = self._folder / f".{secrets.token_hex(8)}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sha256, size_bytes = await self._receive(partial, chunks)
            if known := self.find(sha256):
                return known
            probed = await asyncio.to_thread(media.probe, partial)
            upload = Upload(
                sha256=sha256,
                kind=probed.kind,
                media_type=probed.media_type,
                width=probed.width,
                height=probed.height,
                size_bytes=size_bytes,
                filename=_clean(filename),
            )
            await asyncio.to_thread(self._keep, partial, upload)
        except OSError as error:
            raise storage_failed(error, self._folder) from error
        finally:
            partial.unlink(missing_ok=True)
        return upload

    async def add_data_uri(self, field: str, uri: str) -> Upload:
        """Keep the file inside a `data:…;base64,…` URI, so that it never enters the queue.

        Raises:
            InputRejected: as `add`; the problem names `field`.
        """
        try:
            content = base64.b64decode(uri.partition("base64,")[2], validate=True)
        except (binascii.Error, ValueError):
            raise rejected(field, "the data: URI is not valid base64") from None
        try:
            return await self.add(_once(content))
        except InputRejected as error:
            raise rejected(field, error.message) from None

    def find(self, sha256: str) -> Upload | None:
        """What is known about a kept file; None when it is not here."""
        if not _SHA256.fullmatch(sha256) or not self.path(sha256).is_file():
            return None
        try:
            return Upload.model_validate_json(self._sidecar(sha256).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            log.exception("the sidecar of upload %s can't be read", sha256)
            return None

    async def _receive(self, partial: Path, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
        digest = hashlib.sha256()
        size_bytes = 0
        limit: tuple[str, int] | None = None
        with partial.open("xb", buffering=0) as file:
            async for block in _blocks(chunks):
                limit = limit or self._limit(block)
                size_bytes += len(block)
                if size_bytes > limit[1]:
                    raise TooLarge(
                        f"the {limit[0]} is too large: at most {limit[1] // 1_000_000} MB"
                    )
                await asyncio.to_thread(_write, file.write, digest.update, block)
            await asyncio.to_thread(os.fsync, file.fileno())
        if limit is None:
            raise rejected("", "the file is empty")
        return digest.hexdigest(), size_bytes

    def _limit(self, head: bytes) -> tuple[str, int]:
        """(kind, bytes) by how the file begins."""
        kind = "video" if sniff_video(head[:_SNIFF_BYTES]) else "image"
        if kind == "image" and sniff_image(head[:_SNIFF_BYTES]) is None:
            raise rejected("", f"not a PNG, JPEG or WebP picture, nor a video: {TAKEN}")
        return kind, self._limits[kind]

    def _keep(self, partial: Path, upload: Upload) -> None:
        sidecar = self._sidecar(upload.sha256)
        beside = partial.with_suffix(".json")
        try:
            beside.write_text(upload.model_dump_json(), encoding="utf-8")
            beside.replace(sidecar)
        finally:
            beside.unlink(missing_ok=True)
        partial.replace(self.path(upload.sha256))

    def _sidecar(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= _WRITE_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _write(
    write: Callable[[bytes], int | None], update: Callable[[bytes], None], block: bytes
) -> None:
    view = block
    update(block)
    while view:  # an unbuffered write may take less than it was given
        view = view[write(view) or 0 :]


def _clean(filename: str) -> str:
    """A name to show and to download under, never a path."""
    name = re.split(r"[/\\]", filename)[-1]
    return "".join(c for c in name if c.isprintable()).strip(". ")[:_FILENAME_MAX]
