"""HotLoras: puts LoRAs on a loaded pipeline and takes them off again, without touching its weights.

    y = W x + b          every Linear as it was loaded
    y = W x + b + B A x  what LoRAs add; A (rank, in) and B (out, rank) stand beside W

DiffSynth's AutoWrappedLinear computes this. Offloaded and quantised models are made of it already;
others get it around the same weight tensors when the first LoRA comes. With nothing beside W it
computes what a plain Linear does, so a pipeline whose LoRAs are off gives the same bits as before
they were on. Nothing is ever fused into W: that could not be undone exactly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from core.errors import ModelMissing
from core.lora import LoraUse
from core.lora_keys import Pair
from core.pipelines.stock import (
    AutoWrappedLinear,
    AutoWrappedModule,
    LoRAHotLoadMixin,
    enable_vram_management_recursively,
)
from core.protocol import Stage
from core.run import Run

log = logging.getLogger(__name__)

_PLACES: Final = {"high": "dit", "low": "dit2", "transformer": "dit"}
"""Where DiffSynth's pipelines keep each expert."""

Matrices = tuple[torch.Tensor, torch.Tensor]
_Key = tuple[str, str, int, int, float]


class HotLoras:
    """The LoRAs on one DiffSynth pipeline."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._present: tuple[_Key, ...] = ()

    def use(self, uses: Sequence[LoraUse], run: Run) -> None:
        """Have exactly these on the pipeline, in whatever order they are given.

        The same files with the same strengths as before cost nothing; otherwise the matrices are
        read anew. A strength of 0 is as good as none. If it fails or is cancelled, none is on.

        Raises:
            JobCancelled: between two modules.
        """
        # Sorted, because sums of floats depend on the order.
        wanted = sorted((use for use in uses if use.strength), key=_key)
        keys = tuple(_key(use) for use in wanted)
        if keys == self._present:
            return
        began = time.monotonic()
        self.clear()
        try:
            if wanted:
                self._put_on(run.steps(Stage.LOADING, wanted, len(wanted)), run.check)
        except BaseException:
            self.clear()
            raise
        self._present = keys
        log.info("%d LoRA files are on, after %.3f s", len(keys), time.monotonic() - began)

    def _put_on(self, uses: Iterable[LoraUse], check: Callable[[], None]) -> None:
        beside: dict[str, dict[str, list[Matrices]]] = {}
        for use in uses:
            modules = beside.setdefault(_PLACES[use.expert], {})
            for module, matrices in _read(use, self._pipe.torch_dtype, self._pipe.device, check):
                modules.setdefault(module, []).append(matrices)
        for place, modules in beside.items():
            linears = self._linears(getattr(self._pipe, place), modules.keys())
            for module in list(modules):
                down, up = zip(*modules.pop(module), strict=True)
                # Side by side they are one product: B1 A1 x + B2 A2 x = [B1 B2] [A1; A2] x.
                linears[module].lora_A_weights.append(_joined(down, dim=0))
                linears[module].lora_B_weights.append(_joined(up, dim=1))

    def _linears(self, model: Any, wanted: Collection[str]) -> dict[str, Any]:
        """The model's linear modules that can have something beside them, by name.

        Raises:
            RuntimeError: the loaded model is not built as its files said.
        """
        if not getattr(model, "vram_management_enabled", False):
            self._pipe.enable_lora_hot_loading(model)
        found = _hot(model)
        if not found.keys() >= set(wanted):
            _open_wrapped_parts(model, self._pipe)
            found = _hot(model)
        if absent := sorted(set(wanted) - found.keys()):
            raise RuntimeError(f"the loaded model has no linear modules {', '.join(absent[:5])}")
        return found

    def clear(self) -> None:
        """Take all of them off."""
        self._present = ()
        for place in set(_PLACES.values()):
            if (model := getattr(self._pipe, place, None)) is not None:
                for linear in _hot(model).values():
                    linear.lora_A_weights.clear()
                    linear.lora_B_weights.clear()


def _key(use: LoraUse) -> _Key:
    stat = use.path.stat()
    return use.expert, str(use.path), stat.st_size, stat.st_mtime_ns, use.strength


def _hot(model: Any) -> dict[str, Any]:
    """Modules that compute with what stands beside them, by name in the model's own files."""
    return {
        ".".join(part for part in name.split(".") if part != "module"): module
        for name, module in model.named_modules()
        if isinstance(module, LoRAHotLoadMixin)
    }


def _open_wrapped_parts(model: Any, pipe: Any) -> None:
    """Make the Linears inside of parts that an offloaded model moves as a whole (Wan's head) hot.

    Such a part is computed as it is or as a copy on the device, so its Linears never move alone.
    """
    here: dict[str, Any] = {}
    for state in ("offload", "onload", "preparing", "computation"):
        here |= {f"{state}_dtype": pipe.torch_dtype, f"{state}_device": pipe.device}
    for part in list(model.modules()):
        if type(part) is AutoWrappedModule:
            enable_vram_management_recursively(
                part.module, {torch.nn.Linear: AutoWrappedLinear}, vram_config=here
            )


def _read(
    use: LoraUse, dtype: torch.dtype, device: str, check: Callable[[], None]
) -> Iterator[tuple[str, Matrices]]:
    """A file's matrices by module: A (rank, in) scaled by strength and alpha, B (out, rank)."""
    # Opening maps the file: each tensor is read when it is asked for, into nothing but its copy.
    with _opened(use) as file:
        for module, pair in use.pairs.items():
            check()
            scale = _scale(file, pair, use.strength)
            down = file.get_tensor(pair.down).to(device)
            # In float32 where the file's own type is not what is computed in.
            down = down * scale if down.dtype == dtype else (down.float() * scale).to(dtype)
            yield module, (down, file.get_tensor(pair.up).to(device, dtype, copy=True))


def _joined(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


@contextmanager
def _opened(use: LoraUse) -> Iterator[Any]:
    try:
        with safe_open(use.path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:  # changed since its header was checked
        raise ModelMissing(f"LoRA {use.name!r} can't be read: {error}") from error


def _scale(file: Any, pair: Pair, strength: float) -> float:
    if pair.alpha is None:
        return strength * pair.scale
    return strength * float(file.get_tensor(pair.alpha)) / pair.rank
