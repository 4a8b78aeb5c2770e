"""Adapter: what every loaded pipeline offers, whatever family it is of.

Everything that is hooked into the stock pipeline for a run is taken off again when the call ends,
however it ends.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from core.lora import LoraUse
from core.pipelines.caches import cache_units
from core.pipelines.device import peak_memory
from core.pipelines.loading import Loaded, out_of_memory
from core.pipelines.lora import HotLoras
from core.pipelines.placement import GIB
from core.pipelines.preview import LatentColours, data_uri
from core.protocol import Device, Stage
from core.run import Run


class Adapter(ABC):
    """A loaded DiffSynth pipeline. One job at a time: the stock pipelines are not re-entrant.

    Args:
        loaded: DiffSynth's pipeline, and how it is kept.
        colours: latents to preview colours.
        device: what it computes on.
        provenance: models and versions, for the metadata of outputs.
    """

    cached: ClassVar[tuple[type, ...]] = ()
    """Classes of the stock pipeline's units whose results are kept."""

    def __init__(
        self, loaded: Loaded, *, colours: LatentColours, device: Device, provenance: dict[str, Any]
    ) -> None:
        self.provenance = {**provenance, "placement": loaded.placement.name}
        self._pipe = loaded.pipe
        self._placement = loaded.placement
        self._colours = colours
        self._device = device
        self._loras = HotLoras(loaded.pipe)
        cache_units(loaded.pipe, self.cached)

    def use_loras(self, uses: Sequence[LoraUse], run: Run) -> None:
        """Have exactly these LoRAs on it; see HotLoras.use."""
        with out_of_memory("putting LoRAs on"):
            self._loras.use(uses, run)

    def measured(self) -> dict[str, Any]:
        """How it is kept, and the memory that was taken at most since the last call."""
        facts = {name: self.provenance[name] for name in ("placement", "attention", "dtype")}
        return {**facts, "peak_memory_gib": round(peak_memory(self._device) / GIB, 2)}

    def recover(self) -> None:
        """Bring everything to rest after an exception in the middle of a call."""
        peak_memory(self._device)  # what this run took is not the next one's peak
        self._pipe.load_models_to_device([])
        self._pipe.vae.model.clear_cache()
        self._empty_caches()

    def release(self) -> None:
        """Drop the weights; the adapter can't be used after this."""
        self._pipe = None
        del self._loras  # holds the pipeline as well
        self._empty_caches()

    @abstractmethod
    def _blocks(self) -> Iterator[torch.nn.Module]:
        """The modules before which a cancel is looked for: each takes seconds at most."""

    @contextmanager
    def _cancellable(self, run: Run) -> Iterator[None]:
        """While it lasts, every block asks whether the job shall end before it computes."""

        def check(module: Any, inputs: Any) -> None:
            run.check()

        handles = [block.register_forward_pre_hook(check) for block in self._blocks()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _empty_caches(self) -> None:
        gc.collect()
        if self._device.kind == "cuda":
            torch.cuda.empty_cache()


class StepWatch:
    """Denoising steps as a stage of the run, with a preview of where they lead."""

    def __init__(self, run: Run, colours: LatentColours, device: Device) -> None:
        self._run = run
        self._colours = colours
        self._device = device
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def bar(self, timesteps: torch.Tensor) -> Iterator[torch.Tensor]:
        """Takes the place of tqdm in the stock loop."""
        self._run.enter(Stage.DENOISING, len(timesteps))
        for done, timestep in enumerate(timesteps, start=1):
            self._run.check()
            yield timestep
            if self._device.kind == "cuda":
                torch.cuda.synchronize()  # else a step is told when it was queued
            self._run.step(done, self._preview)

    def watched(self, step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The scheduler's step, remembering what it was given."""

        def remembering(
            model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor
        ) -> torch.Tensor:
            self._last = (model_output, timestep, sample)
            return step(model_output, timestep, sample)

        return remembering

    def _preview(self) -> str | None:
        if self._last is None:
            return None
        velocity, timestep, sample = self._last
        # The clean latents that this step points to: x0 = x - sigma * v.
        clean = sample - velocity * (float(timestep) / 1000)
        return data_uri(self._colours.picture(clean))


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An instance's attribute, replaced for a while."""
    own = vars(owner)
    missing = name not in own
    before = own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
