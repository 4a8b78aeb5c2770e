"""Run: the handle that a workflow and its pipeline hold while they work on one job.

It turns what happens into events (stage, step, fraction, time left), stops the work when the
job is cancelled, brings in the inputs and stores the outputs. It knows no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from core import media
from core.errors import JobCancelled
from core.progress import ProgressMeter
from core.protocol import Artifact, Event, Job, Plan, Progress, Stage
from core.storage import LocalStorage

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from core.fetch import Inputs
    from core.workflows.base import PipelineSpec

T = TypeVar("T")

MIN_INTERVAL_S: Final = 0.1
"""Progress of one job is at most this dense; a new stage is always told."""
PREVIEW_INTERVAL_S: Final = 0.5


class Run:
    """One attempt at one job.

    Args:
        job: what to do.
        emit: takes each event that is not terminal; must not block for long.
        cancelled: whether the job shall end; asked often, so it must be cheap.
        load: gives the loaded pipeline for a spec.
        inputs: brings files in by reference.
        storage: where outputs go.
        meter: fraction and time left.
        steered: the newest plan that came after the job, None as long as there is none.
    """

    def __init__(
        self,
        job: Job,
        *,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        load: Callable[[PipelineSpec, Run], Any],
        inputs: Inputs,
        storage: LocalStorage,
        meter: ProgressMeter,
        steered: Callable[[], Plan | None] = lambda: None,
    ) -> None:
        self.job = job
        self.artifacts: list[Artifact] = []
        self.provenance: dict[str, Any] = {}
        self._emit = emit
        self._cancelled = cancelled
        self._load = load
        self._inputs = inputs
        self._storage = storage
        self._meter = meter
        self._steered = steered
        self._last_emit = 0.0
        self._last_preview = 0.0

    # --- the recipe's side -------------------------------------------------------------------

    def pipeline(self, spec: PipelineSpec) -> Any:
        """The loaded pipeline for `spec`; loads it if another one, or none, is there."""
        self.check()
        loaded = self._load(spec, self)
        self.provenance = loaded.provenance
        return loaded

    def image(self, field: str, ref: str, *, size: tuple[int, int], fit: media.Fit) -> Image.Image:
        """The picture behind a reference, RGB, upright, brought to `size` (width, height).

        Raises:
            InputRejected: not a picture that we take; the problem names `field`.
        """
        self.check()
        path = self._inputs.path(field, ref)
        return media.fitted(media.read_image(path, field=field), size, fit)

    def video(
        self, field: str, ref: str, *, size: tuple[int, int], fit: media.Fit, frames: int
    ) -> list[Image.Image]:
        """The first `frames` frames of a video, each RGB of `size` (width, height).

        Raises:
            InputRejected: not a video, or too short; the problem names `field`.
        """
        self.check()
        path = self._inputs.path(field, ref)
        return media.read_video(path, field=field, size=size, fit=fit, frames=frames)

    def save_video(
        self,
        frames: Iterable[np.ndarray[Any, Any]],
        *,
        size: tuple[int, int],
        frames_total: int,
        fps: int,
        crf: int,
    ) -> Artifact:
        """Encode frames as they come, then store the mp4 and its poster.

        Args:
            frames: uint8 arrays (H, W, 3).
            size: (width, height) in pixels.
            frames_total: how many frames there will be.
            fps: frames a second.
            crf: H.264 rate factor, 0 (best) to 51.
        """
        name = f"{self.job.workflow}-{self.job.id[-12:]}"
        metadata = media.embedded(self.job, self.provenance)
        with (
            closing(self._checked(frames)) as checked,
            self._storage.new_file(self.job, f"{name}.mp4") as file,
        ):
            info = media.write_mp4(
                file.path, checked, size=size, fps=fps, crf=crf, metadata=metadata
            )
            self.enter(Stage.SAVING)
            if info.frames != frames_total:
                raise RuntimeError(f"{info.frames} frames were decoded, expected {frames_total}")
            stored = file.commit()
        with self._storage.new_file(self.job, f"{name}.webp") as file:
            media.write_poster(file.path, info)
            poster = file.commit()
        video = stored.artifact("video", "video/mp4", size=size, frames=info.frames, fps=float(fps))
        self.artifacts += [video, poster.artifact("image", "image/webp", size=info.poster_size)]
        return video

    def _checked(self, frames: Iterable[T]) -> Generator[T, None, None]:
        """The same frames; when they are not taken to the end, their source is told so."""
        try:
            for frame in frames:
                self.check()
                yield frame
        finally:
            if isinstance(frames, Generator):
                frames.close()

    # --- the pipeline's side -----------------------------------------------------------------

    def check(self) -> None:
        """Raise JobCancelled if the job shall end. Call it between steps and inside them."""
        if self._cancelled():
            raise JobCancelled("cancelled on request")

    def enter(self, stage: Stage, steps: int = 0) -> None:
        """A new stage begins; `steps` is 0 when it can't be counted."""
        self.check()
        self._meter.enter(stage, steps)
        self._tell(preview=None, force=True)

    def step(self, done: int, preview: Callable[[], str | None] | None = None) -> None:
        """`done` steps of the present stage are finished.

        Args:
            done: counts from 0.
            preview: makes a data URI; called only when one is due.
        """
        self.check()
        self._meter.step(done)
        picture = None
        if preview and time.monotonic() - self._last_preview >= PREVIEW_INTERVAL_S:
            picture = preview()
            self._last_preview = time.monotonic()
        self._tell(preview=picture, force=picture is not None or self._meter.stage_done)

    def steps(self, stage: Stage, items: Iterable[T], total: int) -> Iterator[T]:
        """Iterate as a stage of `total` steps: tells progress and stops on cancel in between."""
        self.enter(stage, total)
        for done, item in enumerate(items, start=1):
            self.check()
            yield item
            self.step(done)

    def _tell(self, *, preview: str | None, force: bool) -> None:
        if not force and time.monotonic() - self._last_emit < MIN_INTERVAL_S:
            return
        self._last_emit = time.monotonic()
        state = self._meter.state()
        self._emit(
            Progress(
                job_id=self.job.id,
                stage=state.stage,
                step=state.step,
                steps=state.steps,
                fraction=state.fraction,
                eta_s=state.eta_s,
                preview=preview,
            )
        )
