"""Weight files on disk: are they whole, and which ones are they? Torch-free.

A safetensors file tells its own length: 8 bytes with the header's length, the header (JSON: where
each tensor lies), then the tensors. So a truncated file is seen without reading its gigabytes.

A fingerprint says which bytes a file holds. Hashing 57 GB takes minutes, so a job never waits for
it: small files are hashed, large ones have the sha256 that Hugging Face told at download, or one
that `diffbox doctor --hash` computed, or else only the hash of their header (`header_sha256`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from core.catalog import ModelRef, WeightFile, locate
from core.errors import ModelMissing, Problem

_HEADER_MAX: Final = 100_000_000
"""The format's own limit."""
_HASHED_AT_ONCE: Final = 64_000_000
_PICKLE_MAGIC: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
FingerprintKind = Literal["sha256", "header_sha256"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Safetensors:
    """What a whole safetensors file says about itself.

    `parameters` counts numbers, not bytes; `shapes` are by tensor name; `metadata` is free text.
    """

    path: Path
    size_bytes: int
    header_sha256: str
    parameters: int
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCopy:
    """One file of a model as it lies here.

    `commit` is the repository's commit that it was downloaded from, when that is known.
    """

    role: str
    repo: str
    revision: str
    name: str
    path: Path
    size_bytes: int
    kind: FingerprintKind
    digest: str
    commit: str | None = None

    def provenance(self) -> dict[str, Any]:
        """For the metadata of outputs; holds no local path."""
        row: dict[str, Any] = {
            "role": self.role,
            "repo": self.repo,
            "revision": self.commit or self.revision,
            "name": self.name,
            "size_bytes": self.size_bytes,
        }
        return {**row, self.kind: self.digest}


def check_safetensors(path: Path) -> Safetensors:
    """Read the header and compare what it promises with the file's size.

    Raises:
        ModelMissing: not there, empty, truncated, a pickle checkpoint, or not safetensors.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            raw = _read_header(path, head, file.read, size)
    except OSError as error:
        raise _unusable(f"{path} can't be read: {os.strerror(error.errno or 0)}") from error
    shapes, metadata, end = _parse_header(path, raw)
    expected = 8 + len(raw) + end
    if size != expected:
        word = "truncated" if size < expected else "longer than it should be"
        raise _damaged(path, f"{word}: {expected} bytes expected, {size} found")
    return Safetensors(
        path=path,
        size_bytes=size,
        header_sha256=hashlib.sha256(head + raw).hexdigest(),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        shapes=shapes,
        metadata=metadata,
    )


def _read_header(path: Path, head: bytes, read: Any, size: int) -> bytes:
    if head.startswith(_PICKLE_MAGIC):
        raise _unusable(
            f"{path} is a pickle checkpoint: loading one runs code that is hidden in it, so only "
            "safetensors files are taken; download the safetensors version of this model"
        )
    if len(head) < 8:
        raise _damaged(path, f"at least 8 bytes expected, {size} found")
    length = struct.unpack("<Q", head)[0]
    if length > _HEADER_MAX:
        raise _damaged(path, f"not a safetensors file: it begins with {head!r}")
    raw: bytes = read(length)
    if len(raw) < length:
        raise _damaged(path, f"truncated: at least {8 + length} bytes expected, {size} found")
    return raw


def _parse_header(path: Path, raw: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, str], int]:
    """Shapes by name, the metadata, and where the last tensor ends behind the header."""
    try:
        rows = json.loads(raw)
        metadata = {str(k): str(v) for k, v in (rows.pop("__metadata__", None) or {}).items()}
        shapes = {name: tuple(map(int, row["shape"])) for name, row in rows.items()}
        end = max((int(row["data_offsets"][1]) for row in rows.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, "not a safetensors file: its header can't be read") from error
    return shapes, metadata, end


def _damaged(path: Path, what: str) -> ModelMissing:
    return _unusable(f"{path} is damaged ({what}); delete it and download it again")


def _unusable(message: str) -> ModelMissing:
    return ModelMissing(message, problems=(Problem(field="model", message=message),))


def missing(row: ModelRef, models_dir: Path) -> ModelMissing | None:
    """The error that lists which files of a model are not here; None when all are."""
    absent = [file for file in row.files if not locate(file, models_dir)]
    if not absent:
        return None
    files = "; ".join(f"{file.repo}: {file.pattern} ({file.role})" for file in absent)
    return _unusable(
        f"{row.title} is not complete on this machine. Missing: {files}. "
        f"Looked below {models_dir}/base/<repository> and {models_dir}/<repository>. "
        "Put them there, or choose another model"
    )


def copies(row: ModelRef, models_dir: Path, known: Fingerprints) -> tuple[WeightCopy, ...]:
    """Every file of a model that is here, in the catalog's order, with its fingerprint.

    Raises:
        ModelMissing: one of them is damaged.
    """
    return tuple(
        _copy(file, path, known) for file in row.files for path in locate(file, models_dir)
    )


def fingerprint_of(path: Path, repo: str, known: Fingerprints) -> dict[str, str]:
    """A file's fingerprint by its kind; `repo` is where it comes from, "" when nobody knows."""
    told = _told_by_hub(path, repo) if repo else None
    kind, digest = known.fingerprint(path, told and told[1])
    return {kind: digest}


def _copy(file: WeightFile, path: Path, known: Fingerprints) -> WeightCopy:
    told = _told_by_hub(path, file.repo)
    kind, digest = known.fingerprint(path, told and told[1])
    return WeightCopy(
        role=file.role,
        repo=file.repo,
        revision=file.revision,
        name=path.name,
        path=path,
        size_bytes=path.stat().st_size,
        kind=kind,
        digest=digest,
        commit=told[0] if told else None,
    )


def _told_by_hub(path: Path, repo: str) -> tuple[str, str | None] | None:
    """(commit, sha256 or None) from what huggingface_hub wrote beside a download."""
    root = _repository_root(path, repo)
    if root is None:
        return None
    inside = path.relative_to(root)
    note = root / ".cache" / "huggingface" / "download" / inside.with_name(f"{path.name}.metadata")
    try:
        commit, etag, timestamp = note.read_text(encoding="utf-8").split()
        # As huggingface_hub does: a file that was changed after the note is another file.
        if path.stat().st_mtime - 1 > float(timestamp):
            return None
    except (OSError, ValueError):
        return None
    is_sha256 = len(etag) == 64 and all(c in "0123456789abcdef" for c in etag)
    return commit, etag if is_sha256 else None


def _repository_root(path: Path, repo: str) -> Path | None:
    parts = tuple(repo.split("/"))
    return next((p for p in path.parents if p.parts[-len(parts) :] == parts), None)


class Fingerprints:
    """Fingerprints of files; computed ones are kept in the data folder by path, size and time."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "fingerprints.json"

    def fingerprint(self, path: Path, told: str | None = None) -> tuple[FingerprintKind, str]:
        """(kind, digest) without ever reading a large file.

        Args:
            path: an existing file.
            told: its sha256 if the place it comes from told it.

        Raises:
            ModelMissing: a large safetensors file is damaged.
        """
        if told:
            return "sha256", told
        if digest := self._read().get(_key(path)):
            return "sha256", digest
        if path.stat().st_size <= _HASHED_AT_ONCE or path.suffix != ".safetensors":
            return "sha256", _sha256(path)
        return "header_sha256", check_safetensors(path).header_sha256

    def verify(self, path: Path) -> str:
        """The sha256 of the whole file, read now and remembered. Minutes for large ones."""
        digest = _sha256(path)
        kept = {**self._read(), _key(path): digest}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._file.parent, prefix=".fingerprints-", delete=False, encoding="utf-8"
        ) as file:
            json.dump(kept, file, indent=1)
        Path(file.name).replace(self._file)
        return digest

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{path}:{stat.st_size}:{stat.st_mtime_ns}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
