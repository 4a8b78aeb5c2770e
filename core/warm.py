"""WarmPipelines: loaded pipelines stay between jobs as long as they fit, the last used ones first.

    get(spec)  here already? ──yes──> that one
                    │no
               does it fit beside the others? ──no──> the least recently used one goes, ask again
                    │yes
               load; out of memory all the same? ──> all others go, load once more

Equal specs share one pipeline, so both experts of a model are in memory once whichever workflows
use them. Torch-free: what fits is asked of whoever knows the device.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from core.errors import OutOfMemory
from core.lora import LoraUse
from core.run import Run
from core.workflows.base import PipelineSpec

log = logging.getLogger(__name__)


class LoadedPipeline(Protocol):
    """What an adapter in core.pipelines offers the engine; its workflows know the rest."""

    provenance: dict[str, Any]
    """Models (revisions, file hashes) and versions, for the metadata of outputs."""

    def use_loras(self, uses: Sequence[LoraUse], run: Run) -> None:
        """Have exactly these LoRAs on it."""

    def measured(self) -> dict[str, Any]:
        """How it is kept, and the memory that was taken at most since the last call."""

    def release(self) -> None:
        """Drop the weights and give the memory back."""

    def recover(self) -> None:
        """Bring the pipeline back to rest after an exception in the middle of a run."""


class WarmPipelines:
    """The loaded pipelines of one device.

    Args:
        load: makes the pipeline for a spec; tells progress on the run it is loaded for.
        fits: whether the pipeline for a spec has room beside what is loaded now.
    """

    def __init__(
        self,
        load: Callable[[PipelineSpec, Run], LoadedPipeline],
        fits: Callable[[PipelineSpec], bool],
    ) -> None:
        self._load = load
        self._fits = fits
        self._loaded: OrderedDict[PipelineSpec, LoadedPipeline] = OrderedDict()

    @property
    def specs(self) -> tuple[PipelineSpec, ...]:
        """What is loaded, the least recently used one first."""
        return tuple(self._loaded)

    def get(self, spec: PipelineSpec, run: Run) -> LoadedPipeline:
        """The pipeline for `spec`, loaded if it is not there.

        Raises:
            OutOfMemory: it does not fit, even alone.
            DiffboxError: as loading raises.
        """
        if spec not in self._loaded:
            while self._loaded and not self._fits(spec):
                self._evict()
            self._loaded[spec] = self._loaded_anew(spec, run)
        self._loaded.move_to_end(spec)
        return self._loaded[spec]

    def measured(self) -> dict[str, Any]:
        """What the pipeline that was used last tells about itself."""
        return next(reversed(self._loaded.values())).measured() if self._loaded else {}

    def recover(self, *, drop: bool) -> None:
        """After a run that ended badly: bring the pipeline it used to rest.

        Args:
            drop: give all of them up: what they hold may be broken, or fill the device.
        """
        if not self._loaded:
            return
        newest = next(reversed(self._loaded.values()))
        try:
            newest.recover()
        except Exception:
            log.exception("the pipeline did not recover and is dropped")
            drop = True
        if drop:
            self.close()

    def close(self) -> None:
        """Drop all of them."""
        while self._loaded:
            self._evict()

    def _loaded_anew(self, spec: PipelineSpec, run: Run) -> LoadedPipeline:
        try:
            return self._load(spec, run)
        except OutOfMemory:
            if not self._loaded:
                raise
            log.warning("%s does not fit beside %s: they go", spec, self.specs)
        # Outside the handler, whose exception holds the frames of what was half loaded.
        self.close()
        return self._load(spec, run)

    def _evict(self) -> None:
        spec, pipeline = self._loaded.popitem(last=False)
        log.info("%s is dropped", spec)
        pipeline.release()
