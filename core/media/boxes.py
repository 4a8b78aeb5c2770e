"""The boxes that an mp4 is made of, as far as a stored clip has to be looked at.

    ftyp moov | moof mdat | moof mdat …      moov: what decodes it; moof: times; mdat: pictures

ISO/IEC 14496-12, sections 4.2 (box), 8.4.2 (mdhd), 8.8.12 (tfdt).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

_HEADER: Final = 8
_LEAF: Final = 64
"""All that is read of a box without boxes in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragmented:
    """What is in a fragmented mp4."""

    init_bytes: int
    """So many bytes at its start are the initialization segment."""
    start_s: Fraction
    """The decode time of its first fragment, in seconds, exactly."""


def read_fragmented(path: Path) -> Fragmented:
    """Walk through a fragmented mp4 of ours.

    Raises:
        ValueError: cut short, damaged, or not fragmented; says where.
    """
    with path.open("rb") as file:
        found = list(_boxes(file, 0, os.fstat(file.fileno()).st_size, path))
        kinds = [kind for kind, _, _ in found]
        fragments = kinds[2:]
        if kinds[:2] != ["ftyp", "moov"] or not fragments:
            raise _damaged(path, f"it begins with {' '.join(kinds[:3]) or 'nothing'}")
        if fragments != ["moof", "mdat"] * (len(fragments) // 2):
            raise _damaged(path, "a fragment is not moof and mdat")
        _, moov_start, moov_end = found[1]
        _, moof_start, moof_end = found[2]
        mdhd = _inside(file, moov_start, moov_end, ("trak", "mdia", "mdhd"), path)
        tfdt = _inside(file, moof_start, moof_end, ("traf", "tfdt"), path)
    timescale = _number(mdhd, 20 if mdhd[0] else 12, 4, path)
    if not timescale:
        raise _damaged(path, "its clock has no rate")
    start = _number(tfdt, 4, 8 if tfdt[0] else 4, path)
    return Fragmented(init_bytes=moov_end, start_s=Fraction(start, timescale))


def _boxes(file: IO[bytes], start: int, end: int, path: Path) -> Iterator[tuple[str, int, int]]:
    """(kind, where its content starts, where it ends) of all boxes side by side."""
    while start < end:
        file.seek(start)
        head = file.read(16)
        if len(head) < _HEADER:
            raise _damaged(path, f"it breaks off at byte {start}")
        size, kind = struct.unpack(">I4s", head[:_HEADER])
        content = start + _HEADER
        if size == 1 and len(head) == 16:  # 64 bits of size follow
            size, content = struct.unpack(">Q", head[_HEADER:])[0], content + 8
        if start + size < content or start + size > end:
            raise _damaged(path, f"a box at byte {start} says {size} bytes; {end - start} are left")
        yield kind.decode("latin-1"), content, start + size
        start += size


def _inside(file: IO[bytes], start: int, end: int, kinds: tuple[str, ...], path: Path) -> bytes:
    """How the first box along a way of kinds begins; not empty."""
    for kind in kinds:
        found = [(s, e) for k, s, e in _boxes(file, start, end, path) if k == kind]
        if not found:
            raise _damaged(path, f"it has no {kind} box")
        start, end = found[0]
    file.seek(start)
    content = file.read(min(end - start, _LEAF))
    if not content:
        raise _damaged(path, f"its {kinds[-1]} box is empty")
    return content


def _number(content: bytes, at: int, size: int, path: Path) -> int:
    if len(content) < at + size:
        raise _damaged(path, "a box is too short")
    return int.from_bytes(content[at : at + size], "big")


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path.name} is not a whole fragmented mp4: {why}")
