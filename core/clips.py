"""The clips of a job on disk: each one is whole and can be gone on from, whoever made it.

    <outputs>/<job id>/clips/
        0003-<key>.<attempt>.mp4           what it adds to the video
        0003-<key>.<attempt>.safetensors   the latents that the next clip starts from
        0003-<key>.<attempt>.npz           pixels for the seam, where they are needed
        0003-<key>.json                    its record, written last

A clip is there once its record is and the files fit to it. The key is a hash of all that decides
how the clip looks: its prompt, seed and settings, and the key of the clip before. So a job that
lost its worker finds its own clips again, a branch never mixes with what it branched from, and a
worker that lost its lease and still writes harms nobody.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InvalidParams, Problem
from core.protocol import Artifact, Job
from core.storage import LocalStorage, NewFile, StoredFile

log = logging.getLogger(__name__)

VERSION: Final = 1
"""Of the record and the files beside it. Counts up when older ones can't be gone on from."""
FOLDER: Final = "clips"

Pixels = Mapping[str, np.ndarray[Any, Any]]


class ClipFile(BaseModel):
    """One file of a clip."""

    model_config = ConfigDict(frozen=True)

    filename: str
    size_bytes: int
    sha256: str


class StoredClip(BaseModel):
    """A clip's record. `parent` is the key of the clip before, "" for the first one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = VERSION
    index: int
    key: str
    parent: str
    prompt: str
    seed: int
    width: int
    height: int
    fps: int
    start_frame: int
    """Frames of the video before this clip."""
    frames: int
    """Frames that it adds."""
    init_bytes: int
    segment: ClipFile
    latents: ClipFile
    pixels: ClipFile | None = None

    @property
    def files(self) -> tuple[ClipFile, ...]:
        """All its files but the record."""
        return tuple(file for file in (self.segment, self.latents, self.pixels) if file)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlace:
    """Where a new clip stands: after `parent`, made from this prompt and seed."""

    index: int
    key: str
    parent: str
    prompt: str
    seed: int
    start_frame: int

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        return _name(self.index, self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipShape:
    """What was encoded: size (width, height), frames a second, frames, and the file's start."""

    size: tuple[int, int]
    fps: int
    frames: int
    init_bytes: int


def place(
    parent: StoredClip | None, *, prompt: str, seed: int, settings: Mapping[str, Any]
) -> ClipPlace:
    """The place of the clip after `parent`, with the key that it will have."""
    parent_key = parent.key if parent else ""
    facts = {
        "version": VERSION,
        "parent": parent_key,
        "prompt": prompt,
        "seed": seed,
        "settings": settings,
    }
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return ClipPlace(
        index=parent.index + 1 if parent else 0,
        key=hashlib.sha256(text.encode()).hexdigest(),
        parent=parent_key,
        prompt=prompt,
        seed=seed,
        start_frame=parent.start_frame + parent.frames if parent else 0,
    )


class ClipStore:
    """The clips of one job.

    Args:
        storage: where outputs are.
        job: whose clips.
    """

    def __init__(self, storage: LocalStorage, job: Job) -> None:
        self._storage = storage
        self._job = job
        self.folder = storage.outputs_dir / job.id / FOLDER

    # --- what is there -------------------------------------------------------------------------

    def kept(self, source_id: str, index: int, *, field: str) -> list[StoredClip]:
        """Clips 0 to `index` of another job, as this job's own from now on.

        Args:
            source_id: the other job.
            index: the last clip to keep.
            field: the parameter to name when it can't be done.

        Raises:
            InvalidParams: not there, damaged, or stored by an older diffbox.
        """
        own = _lineage(self._whole(self.folder), index)
        if own is not None:
            return own
        folder = self._storage.outputs_dir / source_id / FOLDER
        chain = _lineage(self._whole(folder), index)
        if chain is None:
            raise _no_such_clip(field, source_id, index, folder)
        with self._storage.writing(self.folder):
            for clip in chain:
                self._adopt(clip, folder)
        return chain

    def made(self, parent: StoredClip | None, settings: Mapping[str, Any]) -> list[StoredClip]:
        """What this job had made already, after `parent`, by an attempt that did not end well.

        A clip counts with the prompt and seed that it was made from, whatever is wanted by now:
        what has begun can't be steered any more.
        """
        found = list(self._whole(self.folder))
        chain: list[StoredClip] = []
        while True:
            fits = [
                clip
                for clip in found
                if clip.key
                == place(parent, prompt=clip.prompt, seed=clip.seed, settings=settings).key
            ]
            if not fits:
                return chain
            parent = fits[0]
            chain.append(parent)

    def path(self, file: ClipFile) -> Path:
        """Where a file of a clip of this job lies."""
        return self.folder / file.filename

    def artifact(self, clip: StoredClip) -> Artifact:
        """What the clip adds to the video, as an output."""
        return Artifact(
            kind="video",
            media_type="video/mp4",
            **clip.segment.model_dump(),
            width=clip.width,
            height=clip.height,
            frames=clip.frames,
            fps=clip.fps,
            url=f"{self._job.id}/{FOLDER}/{clip.segment.filename}",
        )

    def pixels(self, clip: StoredClip) -> dict[str, np.ndarray[Any, Any]]:
        """The pixels that were stored with a clip, by name."""
        if clip.pixels is None:
            return {}
        with np.load(self.path(clip.pixels), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    # --- what comes ----------------------------------------------------------------------------

    @contextmanager
    def new_file(self, at: ClipPlace, suffix: str) -> Iterator[NewFile]:
        """A place to write a file of a new clip; what is not committed is removed again."""
        name = f"{at.name}.{self._job.attempt}.{suffix}"
        with self._storage.new_file(self._job, name, folder=FOLDER) as file:
            yield file

    def add(
        self,
        at: ClipPlace,
        shape: ClipShape,
        segment: StoredFile,
        *,
        latents: Callable[[Path], None],
        pixels: Pixels,
    ) -> StoredClip:
        """Store what the next clip needs, then the record: from now on the clip is there."""
        with self.new_file(at, "safetensors") as file:
            latents(file.path)
            stored_latents = file.commit()
        stored_pixels = None
        if pixels:
            with self.new_file(at, "npz") as file:
                np.savez_compressed(file.path, **pixels)  # type: ignore[arg-type]  # a mapping of arrays
                stored_pixels = file.commit()
        clip = StoredClip(
            index=at.index,
            key=at.key,
            parent=at.parent,
            prompt=at.prompt,
            seed=at.seed,
            width=shape.size[0],
            height=shape.size[1],
            fps=shape.fps,
            start_frame=at.start_frame,
            frames=shape.frames,
            init_bytes=shape.init_bytes,
            segment=_of(segment),
            latents=_of(stored_latents),
            pixels=stored_pixels and _of(stored_pixels),
        )
        self._record(clip)
        return clip

    # --- inside --------------------------------------------------------------------------------

    def _whole(self, folder: Path) -> Iterator[StoredClip]:
        """All clips of a folder that are whole, newest first."""
        for record in sorted(folder.glob("*.json"), key=_written, reverse=True):
            clip = _read(record)
            if clip is not None and all(_fits(folder / file.filename, file) for file in clip.files):
                yield clip

    def _adopt(self, clip: StoredClip, folder: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in clip.files:
            _link(folder / file.filename, self.folder / file.filename)
        self._record(clip)

    def _record(self, clip: StoredClip) -> None:
        name = f"{_name(clip.index, clip.key)}.json"
        with self._storage.new_file(self._job, name, folder=FOLDER) as file:
            file.path.write_text(clip.model_dump_json(indent=1), encoding="utf-8")
            file.commit()


def _name(index: int, key: str) -> str:
    """How the names of a clip's files begin."""
    return f"{index:04d}-{key[:16]}"


def _of(file: StoredFile) -> ClipFile:
    return ClipFile(filename=file.filename, size_bytes=file.size_bytes, sha256=file.sha256)


def _lineage(clips: Iterable[StoredClip], index: int) -> list[StoredClip] | None:
    """Clip `index` and all before it, oldest first; the newest such line, None if there is none."""
    by_key: dict[str, StoredClip] = {}
    ends = []
    for clip in clips:
        by_key.setdefault(clip.key, clip)
        if clip.index == index:
            ends.append(clip)
    for end in ends:
        line = [end]
        while (parent := by_key.get(line[-1].parent)) is not None:
            line.append(parent)
        if line[-1].index == 0:
            return line[::-1]
    return None


def _read(record: Path) -> StoredClip | None:
    try:
        clip = StoredClip.model_validate_json(record.read_bytes())
    except (OSError, ValidationError) as error:
        log.warning("clip record %s can't be read: %s", record, error)
        return None
    return clip if clip.version == VERSION else None


def _fits(path: Path, file: ClipFile) -> bool:
    """Whether the file is what the record says; a few megabytes, so it is read whole."""
    try:
        if path.stat().st_size != file.size_bytes:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _written(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy where the file system has no links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)


def _no_such_clip(field: str, source_id: str, index: int, folder: Path) -> InvalidParams:
    """Says which clips there are, or why the one that is there can't be used."""
    records = sorted(folder.glob(f"{index:04d}-*.json"))
    versions = {json.loads(path.read_bytes()).get("version") for path in records}
    if versions and VERSION not in versions:
        found = ", ".join(map(str, versions))
        reason = (
            f"was stored by another version of diffbox (clip format {found}; this one reads "
            f"{VERSION}): make it again"
        )
    elif records:
        reason = "is damaged: go on from an earlier one"
    else:
        there = sorted({int(path.name[:4]) for path in folder.glob("[0-9]*-*.json")})
        have = f"it has clips {there[0]} to {there[-1]}" if there else "it has no clips here"
        reason = f"does not exist: {have}"
    message = f"{field}: clip {index} of job {source_id} {reason}"
    return InvalidParams(message, problems=(Problem(field=field, message=message),))
