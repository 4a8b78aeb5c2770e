"""Boxes: what a fragmented mp4 holds, and which damage is noticed."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest

from core.media import write_segment
from core.media.boxes import read_fragmented
from tests.support.pictures import moving, video

SIZE = (96, 64)
MDHD = b"mdhd" + b"\0" * 12
"""Version 0 without times; the clock's rate follows."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A segment of two fragments that begins at frame 81."""
    path = tmp_path_factory.mktemp("boxes") / "a.mp4"
    write_segment(path, moving(81, 40, SIZE), size=SIZE, fps=16, crf=18, start_frame=81)
    return path.read_bytes()


def file(folder: Path, content: bytes) -> Path:
    path = folder / "clip.mp4"
    path.write_bytes(content)
    return path


def test_start_and_init_are_read(tmp_path: Path, whole: bytes) -> None:
    found = read_fragmented(file(tmp_path, whole))
    assert found.init_bytes == whole.index(b"moof") - 4
    assert found.start_s == Fraction(81, 16)


def test_sizes_of_64_bits_are_read(tmp_path: Path, whole: bytes) -> None:
    at = whole.rindex(b"mdat") - 4
    size = struct.unpack(">I", whole[at : at + 4])[0]
    large = struct.pack(">I4sQ", 1, b"mdat", size + 8)
    found = read_fragmented(file(tmp_path, whole[:at] + large + whole[at + 8 :]))
    assert found.start_s == Fraction(81, 16)


def test_every_cut_is_noticed(tmp_path: Path, whole: bytes) -> None:
    """But one between two fragments: what is left then is whole in itself."""
    second = whole.rindex(b"moof") - 4
    read_fragmented(file(tmp_path, whole[:second]))
    cuts = [*range(0, 1200, 7), *range(1200, len(whole), 501), len(whole) - 1]
    for cut in sorted({*cuts, second - 1, second + 1} - {second}):
        with pytest.raises(ValueError, match=r"clip\.mp4 is not a whole fragmented mp4: "):
            read_fragmented(file(tmp_path, whole[:cut]))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"ftyp", b"free", "it begins with free moov moof"),
        (b"moof", b"free", "a fragment is not moof and mdat"),
        (b"mdat", b"free", "a fragment is not moof and mdat"),
        (b"trak", b"free", "it has no trak box"),
        (b"mdhd", b"free", "it has no mdhd box"),
        (b"tfdt", b"free", "it has no tfdt box"),
        (b"\0\0\0\x18ftyp", b"\0\0\0\x07ftyp", "a box at byte 0 says 7 bytes"),
        (b"\0\0\0\x18ftyp", b"\xff\0\0\x18ftyp", "a box at byte 0 says 4278190104 bytes"),
        (MDHD + b"\0\0\x40\0", MDHD + b"\0\0\0\0", "its clock has no rate"),
    ],
)
def test_damage_is_told(tmp_path: Path, whole: bytes, old: bytes, new: bytes, told: str) -> None:
    assert old in whole
    with pytest.raises(ValueError, match=told):
        read_fragmented(file(tmp_path, whole.replace(old, new, 1)))


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096])
def test_what_is_no_mp4_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="not a whole fragmented mp4"):
        read_fragmented(file(tmp_path, content))


def test_an_ordinary_mp4_is_not_fragmented(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.mp4 is not a whole fragmented mp4"):
        read_fragmented(video(tmp_path / "a.mp4"))
