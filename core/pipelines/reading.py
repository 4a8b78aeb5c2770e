"""Weights from safetensors files to where they are kept, as fast as the files can be read.

    file ── preadv, several threads ──> the tensor itself           on the processor
    file ── preadv ──> pinned block ──> the tensor, block by block   on a GPU

DiffSynth maps a file and copies each mapped tensor, one after the other: every page is touched
twice and a disk has one request at a time to answer (docs/benchmarks.md). Here the kernel writes
into the memory that the model then owns. The numbers are the same bits.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import torch

from core.errors import ModelMissing

THREADS: Final = 4
"""Tensors that are read at once: enough requests for a disk, little enough pinned memory."""
BLOCK_BYTES: Final = 32 * 1024**2
"""Pinned memory of one thread, on the way to a GPU."""

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Tensors = dict[str, torch.Tensor]
Blocks = SimpleQueue[torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where tensors are put, and as what: each one is converted as soon as it is there."""

    device: str
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """One tensor in a file; `begin` and `size` are bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    size: int


def read_tensors(
    paths: Sequence[Path],
    target: Target,
    check: Callable[[], None],
    blocks: Blocks | None = None,
) -> Tensors:
    """All tensors of some whole safetensors files, by name.

    Args:
        paths: the shards of one model.
        target: a device of torch and what is computed in.
        check: called between tensors; what it raises ends the reading.
        blocks: memory on the way to the tensors; for a GPU it is made when there is none.

    Raises:
        ModelMissing: a file can't be read, or not by torch.
    """
    if blocks is None and target.device != "cpu":
        blocks = _pinned()
    tensors: Tensors = {}
    for path in paths:
        tensors |= _read_file(path, target, check, blocks)
    return tensors


def _read_file(
    path: Path, target: Target, check: Callable[[], None], blocks: Blocks | None
) -> Tensors:
    with _opened(path) as file, _pool() as pool:
        pending: dict[str, Future[torch.Tensor]] = {
            place.name: pool.submit(_read_one, file, place, target, blocks)
            for place in _places(path, file)
        }
        tensors: Tensors = {}
        for name in list(pending):
            check()
            tensors[name] = pending.pop(name).result()
    return tensors


def _read_one(file: int, place: _Place, target: Target, blocks: Blocks | None) -> torch.Tensor:
    raw = torch.empty(place.size, dtype=torch.uint8, device=target.device)
    if blocks is None:
        _fill(raw, file, place.begin)
    else:
        block = blocks.get()
        try:
            for start in range(0, place.size, len(block)):
                part = block[: place.size - start]
                _fill(part, file, place.begin + start)
                raw[start : start + len(part)].copy_(part)  # waits: the block is used again
        finally:
            blocks.put(block)
    return raw.view(place.dtype).reshape(place.shape).to(target.dtype)


def _fill(memory: torch.Tensor, file: int, begin: int) -> None:
    """Read as many bytes as the memory holds, from `begin` of the file."""
    buffer: Any = memory.numpy()
    rest = memoryview(buffer)
    while rest:
        count = os.preadv(file, [rest], begin)
        if not count:
            raise EOFError("it became shorter while it was read")
        rest, begin = rest[count:], begin + count


def _places(path: Path, file: int) -> list[_Place]:
    """The tensors of a file that is known to be whole, in the order in which they lie there."""
    length = struct.unpack("<Q", os.pread(file, 8, 0))[0]
    rows = json.loads(os.pread(file, length, 8))
    rows.pop("__metadata__", None)
    if strange := {row["dtype"] for row in rows.values()} - _DTYPES.keys():
        raise ModelMissing(
            f"{path} holds numbers of type {', '.join(sorted(strange))}; "
            f"these can be read: {', '.join(_DTYPES)}"
        )
    places = [
        _Place(
            name=name,
            dtype=_DTYPES[row["dtype"]],
            shape=tuple(row["shape"]),
            begin=8 + length + row["data_offsets"][0],
            size=row["data_offsets"][1] - row["data_offsets"][0],
        )
        for name, row in rows.items()
    ]
    return sorted(places, key=lambda place: place.begin)


def _pinned() -> Blocks:
    blocks: Blocks = SimpleQueue()
    for _ in range(THREADS):
        blocks.put(torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True))
    return blocks


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)
    except (OSError, EOFError) as error:
        raise ModelMissing(f"{path} can't be read: {error}") from error


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that end with the block; what has not begun by then is left out."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reading")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
