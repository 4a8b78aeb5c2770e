"""Weight files: whole or not, and which."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from core import weights
from core.catalog import ModelRef, WeightFile
from core.errors import ModelMissing

FILE = WeightFile(role="vae", repo="owner/model", pattern="vae*.safetensors")
ROW = ModelRef(id="m", title="Model M", family="wan_video", workflows=("i2v",), files=(FILE,))


def safetensors(path: Path, *, values: int = 4, extra: int = 0) -> Path:
    header = json.dumps(
        {
            "__metadata__": {"a": "b"},
            "x": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]},
        }
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * values + extra))
    return path


def test_whole_file_tells_its_parameters_and_shapes(tmp_path: Path) -> None:
    found = weights.check_safetensors(safetensors(tmp_path / "a.safetensors", values=6))
    assert (found.parameters, found.shapes["x"]) == (6, (6,))
    assert found.size_bytes == (tmp_path / "a.safetensors").stat().st_size


def test_truncated_file_is_refused_with_both_sizes_and_what_to_do(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "a.safetensors", extra=-3)
    size = path.stat().st_size
    with pytest.raises(ModelMissing) as error:
        weights.check_safetensors(path)
    for part in (str(path), f"{size + 3} bytes expected", f"{size} found", "download it again"):
        assert part in error.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least 8 bytes expected, 0 found"),
        (struct.pack("<Q", 500) + b"{", "at least 508 bytes expected, 9 found"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "header can't be read"),
        (struct.pack("<Q", 6) + b'{"x":}', "header can't be read"),
        (b"PK\x03\x04 a torch checkpoint", "pickle checkpoint"),
        (b"\x80\x02\x8a\n an old one", "pickle checkpoint"),
    ],
    ids=["empty", "cut header", "lfs pointer", "list", "no json", "zip pickle", "pickle"],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelMissing, match=words):
        weights.check_safetensors(path)


def test_file_with_more_bytes_than_promised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="longer than it should be"):
        weights.check_safetensors(safetensors(tmp_path / "a.safetensors", extra=1))


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="can't be read"):
        weights.check_safetensors(tmp_path / "a.safetensors")


def test_missing_lists_files_and_where_they_were_looked_for(tmp_path: Path) -> None:
    error = weights.missing(ROW, tmp_path)
    assert error is not None
    for part in ("Model M", "owner/model", "vae*.safetensors", str(tmp_path)):
        assert part in error.message
    safetensors(tmp_path / "base/owner/model/vae.safetensors")
    assert weights.missing(ROW, tmp_path) is None


def test_small_file_is_hashed_and_carries_no_local_path(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "base/owner/model/vae.safetensors")
    (copy,) = weights.copies(ROW, tmp_path, weights.Fingerprints(tmp_path / "data"))
    told = copy.provenance()
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(told)


def large(path: Path) -> Path:
    """As large as the files that are never hashed in the way of a job; sparse on disk."""
    return safetensors_sparse(path, 65_000_000)


def safetensors_sparse(path: Path, size: int) -> Path:
    rows = {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)
    return path


def test_large_file_has_the_hash_of_its_header_until_it_is_verified(tmp_path: Path) -> None:
    path = large(tmp_path / "vae.safetensors")
    known = weights.Fingerprints(tmp_path / "data")
    assert known.fingerprint(path)[0] == "header_sha256"
    digest = known.verify(path)
    assert weights.Fingerprints(tmp_path / "data").fingerprint(path) == ("sha256", digest)
    os.utime(path, (1, 1))
    assert known.fingerprint(path)[0] == "header_sha256"


def note(path: Path, root: Path, *, etag: str, timestamp: float) -> None:
    place = root / ".cache/huggingface/download" / f"{path.relative_to(root)}.metadata"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{'c' * 40}\n{etag}\n{timestamp}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("etag", "age_s", "kind", "revision"),
    [
        ("ab" * 32, 10.0, "sha256", "c" * 40),
        ("ab" * 20, 10.0, "header_sha256", "c" * 40),
        ("ab" * 32, -10.0, "header_sha256", "main"),
    ],
    ids=["sha256", "git hash", "changed since"],
)
def test_hash_that_hugging_face_told_is_taken_while_the_file_is_unchanged(
    tmp_path: Path, etag: str, age_s: float, kind: str, revision: str
) -> None:
    path = large(tmp_path / "base/owner/model/vae.safetensors")
    note(path, tmp_path / "base/owner/model", etag=etag, timestamp=path.stat().st_mtime + age_s)
    (copy,) = weights.copies(ROW, tmp_path, weights.Fingerprints(tmp_path / "data"))
    assert (copy.kind, copy.provenance()["revision"]) == (kind, revision)
    assert (copy.digest == etag) is (kind == "sha256")
