"""Uploads: checked, kept once, and nothing left behind when they are refused."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.uploads import TooLarge, Uploads
from core.errors import InputRejected, StorageFailed
from tests.support.pictures import BAD, encoded, gradient, video

PICTURE = encoded(gradient())


async def pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", image_max_bytes=100_000, video_max_bytes=2_000_000)


def files(uploads: Uploads) -> list[str]:
    folder = uploads.path("x").parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def test_a_file_is_kept_under_its_hash(uploads: Uploads) -> None:
    kept = await uploads.add(pieces(PICTURE), filename="a.png")
    assert kept.sha256 == hashlib.sha256(PICTURE).hexdigest() and kept.kind == "image"
    assert uploads.path(kept.sha256).read_bytes() == PICTURE
    assert uploads.find(kept.sha256) == kept


async def test_the_same_file_twice_is_kept_once(uploads: Uploads) -> None:
    first = await uploads.add(pieces(PICTURE), filename="a.png")
    second = await uploads.add(pieces(PICTURE, 7), filename="b.png")
    assert first == second and len(files(uploads)) == 2  # the file and its sidecar


async def test_the_same_file_at_the_same_time_is_kept_once(uploads: Uploads) -> None:
    kept = await asyncio.gather(*(uploads.add(pieces(PICTURE)) for _ in range(4)))
    assert len({one.sha256 for one in kept}) == 1 and len(files(uploads)) == 2


@pytest.mark.parametrize("name", sorted(BAD))
async def test_a_bad_picture_is_refused_and_leaves_nothing(uploads: Uploads, name: str) -> None:
    with pytest.raises(InputRejected):
        await uploads.add(pieces(BAD[name][0]()))
    assert files(uploads) == []


async def test_a_picture_over_its_limit_is_refused_as_soon_as_it_is(uploads: Uploads) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield PICTURE
        while True:
            sent += 100_000
            yield b"0" * 100_000

    with pytest.raises(TooLarge, match="picture|image"):
        await uploads.add(endless())
    assert sent < 3_000_000 and files(uploads) == []


async def test_a_video_has_a_limit_of_its_own(uploads: Uploads, tmp_path: Path) -> None:
    content = video(tmp_path / "a.mp4").read_bytes()
    kept = await uploads.add(pieces(content + b"\0" * 200_000))
    assert kept.kind == "video" and kept.size_bytes > 100_000


async def test_a_sender_that_goes_away_leaves_nothing(uploads: Uploads) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield PICTURE[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await uploads.add(broken())
    assert files(uploads) == []


async def test_a_full_disk_is_storage_failed_and_leaves_nothing(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="no space"):
        await uploads.add(pieces(PICTURE))
    assert files(uploads) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\cat.png", "cat.png"),
        (".hidden", "hidden"),
        ("a\nb\0c.png", "abc.png"),
        ("x" * 500, "x" * 200),
    ],
)
async def test_a_filename_is_only_a_name(uploads: Uploads, sent: str, kept: str) -> None:
    assert (await uploads.add(pieces(PICTURE), filename=sent)).filename == kept


@pytest.mark.parametrize("sha256", ["", "x", "../jobs.json", "0" * 63, "0" * 64, "G" * 64])
def test_what_is_no_kept_file_is_not_found(uploads: Uploads, sha256: str) -> None:
    assert uploads.find(sha256) is None


async def test_a_file_without_a_sidecar_is_taken_again(uploads: Uploads) -> None:
    kept = await uploads.add(pieces(PICTURE))
    uploads.path(kept.sha256 + ".json").unlink()
    assert uploads.find(kept.sha256) is None
    assert await uploads.add(pieces(PICTURE)) == kept


@pytest.mark.parametrize("uri", ["data:image/png;base64,!!!", "data:image/png;base64,AAAA"])
async def test_a_bad_data_uri_names_its_field(uploads: Uploads, uri: str) -> None:
    with pytest.raises(InputRejected) as caught:
        await uploads.add_data_uri("input_image", uri)
    assert caught.value.problems[0].field == "input_image"


async def test_what_a_killed_process_left_is_swept_at_the_next_start(uploads: Uploads) -> None:
    await uploads.add(pieces(PICTURE))
    kept = files(uploads)
    folder = uploads.path("x").parent
    ages_s = {
        f".{'0' * 16}.partial": 10,
        f".{'0' * 16}.json": 10,
        "tmpold.partial": 7200,
        f".{'1' * 16}.partial": -10,
        "tmpfetched.partial": 10,
        "notes.txt": 7200,
    }
    for name, age_s in ages_s.items():
        (folder / name).write_bytes(b"x")
        at = time.time() - age_s
        os.utime(folder / name, (at, at))
    Uploads(folder, image_max_bytes=1, video_max_bytes=1).sweep()
    assert files(uploads) == sorted([*kept, *list(ages_s)[3:]])


def test_sweeping_a_folder_that_is_not_there_does_nothing(uploads: Uploads) -> None:
    uploads.sweep()
    assert files(uploads) == []
