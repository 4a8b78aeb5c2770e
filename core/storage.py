"""Outputs in a local folder: written beside, synced, then renamed, so a file is whole or absent.

    <outputs>/<job id>/<attempt>/<filename>

The attempt is part of the path because a worker that lost its lease may still be writing: only
the attempt whose `completed` event was taken counts, and the next one sweeps what others left.
Clips outlive their attempt and have a folder of their own (core/clips.py).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import StorageFailed
from core.protocol import Artifact, Job

_FULL_OR_FORBIDDEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that is safely in place. `url` is relative to the outputs folder."""

    url: str
    filename: str
    size_bytes: int
    sha256: str

    def artifact(
        self,
        kind: Literal["video", "image"],
        media_type: str,
        *,
        size: tuple[int, int],
        frames: int | None = None,
        fps: float | None = None,
    ) -> Artifact:
        """As an Artifact; `size` is (width, height)."""
        return Artifact(
            kind=kind,
            media_type=media_type,
            filename=self.filename,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            width=size[0],
            height=size[1],
            frames=frames,
            fps=fps,
            url=self.url,
        )


@dataclass(slots=True)
class NewFile:
    """A file being written at `path`; `commit` puts it in place."""

    path: Path
    target: Path
    url: str
    committed: bool = False

    def commit(self) -> StoredFile:
        """Sync to disk, hash, rename."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        size_bytes = self.path.stat().st_size
        self.path.rename(self.target)
        _sync_folder(self.target.parent)
        self.committed = True
        return StoredFile(
            url=self.url, filename=self.target.name, size_bytes=size_bytes, sha256=digest
        )


class LocalStorage:
    """Outputs below one folder of this machine."""

    def __init__(self, outputs_dir: Path) -> None:
        self.outputs_dir = outputs_dir

    @contextmanager
    def new_file(self, job: Job, filename: str, *, folder: str = "") -> Iterator[NewFile]:
        """A place to write one output; what is not committed is removed again.

        Args:
            job: whose output.
            filename: its name.
            folder: below the job's; the attempt's own when left out.

        Raises:
            StorageFailed: the disk is full or the folder can't be written.
        """
        folder = folder or str(job.attempt)
        target = self.outputs_dir / job.id / folder / filename
        partial = target.with_name(f".{filename}.{job.attempt}.partial{target.suffix}")
        new = NewFile(path=partial, target=target, url=f"{job.id}/{folder}/{filename}")
        try:
            with self.writing(target.parent):
                yield new
        finally:
            if not new.committed:
                partial.unlink(missing_ok=True)

    @contextmanager
    def writing(self, folder: Path) -> Iterator[None]:
        """The folder, made if it is not there; what can't be written in it is told in words.

        Raises:
            StorageFailed: the disk is full or the folder can't be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise storage_failed(error, folder) from error

    def sweep(self, job: Job) -> None:
        """Remove what earlier attempts at this job left, but for whole clips."""
        for folder in (self.outputs_dir / job.id).glob("*"):
            if folder.name.isdigit() and int(folder.name) < job.attempt:
                shutil.rmtree(folder, ignore_errors=True)
            for partial in folder.glob(".*.partial*"):
                partial.unlink(missing_ok=True)


def storage_failed(error: OSError, folder: Path) -> Exception:
    """StorageFailed where the user can mend it (space, permissions); else the error itself."""
    if error.errno not in _FULL_OR_FORBIDDEN:
        return error
    free = shutil.disk_usage(_existing(folder)).free
    return StorageFailed(
        f"can't write to {folder}: {os.strerror(error.errno or 0).lower()} "
        f"({free // 1_000_000} MB free)"
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
