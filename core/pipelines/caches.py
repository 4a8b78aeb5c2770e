"""What was encoded before is not encoded again: prompts, and pictures through the VAE.

A stock unit of the pipeline is wrapped; the same inputs give what it gave then, bit by bit. With
offload this spares more than the arithmetic: a text encoder of 11 GB stays where it is. Kept in
host memory, the least recently used first to go, and with the pipeline all of it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from PIL import Image

from core.pipelines.stock import PipelineUnit

MAX_BYTES: Final = 256_000_000
"""Of one unit: about sixty prompts of Wan (4 MB each), or twenty starts of 720p (12 MB)."""


class Encoded:
    """Results by a hash of all that they were made from, at most `max_bytes` of tensors."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def remember(self, inputs: Any, make: Callable[[], Any], device: Any) -> Any:
        """What `make` gave for equal inputs before, else what it gives now.

        Args:
            inputs: texts, numbers, pictures, and lists and mappings of them.
            make: gives tensors, pictures, and lists and mappings of them.
            device: where tensors of an earlier result are wanted.
        """
        key = content_hash(inputs)
        if key in self._kept:
            self._kept.move_to_end(key)
            return _moved(self._kept[key], device)
        result = make()
        kept = _moved(result, "cpu")
        size = _bytes_of(kept)
        if size <= self._max_bytes:
            self._kept[key] = kept
            self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return result


class CachedUnit(PipelineUnit):  # type: ignore[misc]  # diffsynth is untyped
    """Takes the place of a stock unit whose outputs follow from its inputs alone."""

    def __init__(self, stock: Any) -> None:
        super().__init__(
            seperate_cfg=stock.seperate_cfg,
            take_over=stock.take_over,
            input_params=stock.input_params,
            output_params=stock.output_params,
            input_params_posi=stock.input_params_posi,
            input_params_nega=stock.input_params_nega,
            onload_model_names=stock.onload_model_names,
        )
        self.stock = stock
        self.encoded = Encoded()

    def process(self, pipe: Any, **inputs: Any) -> dict[str, Any]:
        """The stock unit's outputs."""
        made: dict[str, Any] = self.encoded.remember(
            inputs, lambda: self.stock.process(pipe, **inputs), pipe.device
        )
        return made


def cache_units(pipe: Any, classes: tuple[type, ...]) -> None:
    """Wrap the pipeline's units of these classes."""
    pipe.units = [CachedUnit(unit) if isinstance(unit, classes) else unit for unit in pipe.units]


def content_hash(value: Any) -> str:
    """A hash of texts, numbers, pictures (by their pixels), and of lists and mappings of them."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterable[bytes]:
    if isinstance(value, Image.Image):
        yield f"{value.mode} {value.size}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield str(name).encode()
            yield from _parts(value[name])
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif value is None or isinstance(value, str | int | float):
        yield repr(value).encode()
    else:
        raise TypeError(f"{type(value).__name__} has no content that could be told apart")


def _moved(value: Any, device: Any) -> Any:
    """The same with copies of its tensors on a device, so that nobody changes ours."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, device) for item in value]
    return value


def _bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Image.Image):
        return len(value.getbands()) * value.width * value.height
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0
