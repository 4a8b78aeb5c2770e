"""Run: the handle that a workflow and its pipeline hold while they work on one job.

It turns what happens into events (stage, step, fraction, time left), stops the work when the
job is cancelled, brings in the inputs and stores the outputs. It knows no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from core import catalog, media
from core.clips import ClipPlace, ClipShape, ClipStore, Pixels, StoredClip
from core.errors import JobCancelled
from core.progress import ProgressMeter
from core.protocol import Artifact, Clip, Event, Job, Plan, Progress, Stage
from core.storage import LocalStorage, StoredFile

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from core.controlnets import ControlnetShelf, ControlnetUse
    from core.fetch import Inputs
    from core.lora import LoraPart, LoraShelf
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
        loras: LoRA files by name.
        controlnets: controlnet files by kind.
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
        loras: LoraShelf,
        controlnets: ControlnetShelf,
        steered: Callable[[], Plan | None] = lambda: None,
    ) -> None:
        self.job = job
        self.artifacts: list[Artifact] = []
        self.provenance: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        """What else is worth telling at the end: numbers by name, seconds when it ends in _s."""
        self.clips = ClipStore(storage, job)
        self._emit = emit
        self._cancelled = cancelled
        self._load = load
        self._inputs = inputs
        self._storage = storage
        self._meter = meter
        self._loras = loras
        self._controlnets = controlnets
        self._steered = steered
        self._last_emit = 0.0
        self._last_preview = 0.0
        self._clip: int | None = None

    # --- the recipe's side -------------------------------------------------------------------

    def pipeline(self, spec: PipelineSpec, loras: Sequence[LoraPart] = ()) -> Any:
        """The loaded pipeline for `spec`; loads it if another one, or none, is there.

        Exactly these LoRAs, and what the workflow itself puts on, are on it afterwards.

        Args:
            spec: family and model.
            loras: what the params want (`Params.lora_parts`).

        Raises:
            ModelMissing: weights or a LoRA are not here.
            InvalidParams: a LoRA is for another model; nothing was loaded then.
        """
        self.check()
        wanted = (spec.model, self.job.workflow, loras)
        # Demo weights are made when they are loaded for the first time.
        early = None if catalog.is_demo(spec.model) else self._loras.uses(*wanted)
        loaded = self._load(spec, self)
        uses = self._loras.uses(*wanted) if early is None else early
        loaded.use_loras(uses, self)
        self.provenance = loaded.provenance
        if uses:
            self.provenance = {**loaded.provenance, "loras": [use.provenance() for use in uses]}
        return loaded

    def controlnet(self, kind: str, model: str) -> ControlnetUse:
        """The checked controlnet of a kind for a model.

        Raises:
            ModelMissing: it is not here, or does not fit the model.
            InvalidParams: there is none for this model.
        """
        self.check()
        return self._controlnets.use(kind, model)

    def image(self, field: str, ref: str, *, size: tuple[int, int], fit: media.Fit) -> Image.Image:
        """The picture behind a reference, RGB, upright, brought to `size` (width, height).

        Raises:
            InputRejected: not a picture that we take; the problem names `field`.
        """
        self.check()
        path = self._inputs.path(field, ref)
        return media.fitted(media.read_image(path, field=field), size, fit)

    def picture(self, field: str, ref: str) -> Image.Image:
        """The picture behind a reference at its own size, RGB, upright.

        Raises:
            InputRejected: not a picture that we take; the problem names `field`.
        """
        self.check()
        return media.read_image(self._inputs.path(field, ref), field=field)

    def mask(self, field: str, ref: str) -> Image.Image:
        """The mask behind a reference at its own size, L, upright; transparent counts as black.

        Raises:
            InputRejected: not a picture that we take; the problem names `field`.
        """
        self.check()
        return media.read_mask(self._inputs.path(field, ref), field=field)

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
        name = self._name
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
        return self._video(stored, size=size, frames=info.frames, fps=fps, first=info.first_frame)

    def save_image(self, image: Image.Image) -> Artifact:
        """Store a picture as PNG, pixel by pixel as it is; a large one with a poster."""
        self.enter(Stage.SAVING)
        metadata = media.embedded(self.job, self.provenance)
        with self._storage.new_file(self.job, f"{self._name}.png") as file:
            media.write_png(file.path, image, metadata=metadata)
            stored = file.commit()
        picture = stored.artifact("image", "image/png", size=image.size)
        large = max(image.size) > media.POSTER_SIDE
        self.artifacts += [picture, self._poster(image)] if large else [picture]
        return picture

    # --- clips ---------------------------------------------------------------------------------

    def plan(self) -> Plan | None:
        """The clips as they are wanted now; asked before each one."""
        return self._steered() or self.job.plan

    def begin_clip(self, index: int) -> None:
        """Clip `index` is made from here on, and can't be steered any more."""
        self.check()
        self._clip = index
        plan = self.plan()
        if plan is not None:
            self._meter.begin_clip(index - plan.first, plan.num_clips)

    def save_clip(
        self,
        at: ClipPlace,
        frames: Iterable[np.ndarray[Any, Any]],
        *,
        size: tuple[int, int],
        frames_added: int,
        fps: int,
        crf: int,
        latents: Callable[[Path], None],
        pixels: Callable[[], Pixels],
    ) -> StoredClip:
        """Encode what a clip adds to the video as it comes, store it with its state, and tell it.

        Args:
            at: which clip.
            frames: uint8 arrays (H, W, 3).
            size: (width, height) in pixels.
            frames_added: how many frames there will be.
            fps: frames a second.
            crf: H.264 rate factor, 0 (best) to 51.
            latents: writes what the next clip starts from to a path.
            pixels: what the seam has to know, by name; asked after the last frame.
        """
        with (
            closing(self._checked(frames)) as checked,
            self.clips.new_file(at, "mp4") as file,
        ):
            info = media.write_segment(
                file.path, checked, size=size, fps=fps, crf=crf, start_frame=at.start_frame
            )
            self.enter(Stage.SAVING)
            if info.frames != frames_added:
                raise RuntimeError(f"{info.frames} frames were decoded, expected {frames_added}")
            segment = file.commit()
        shape = ClipShape(size=size, fps=fps, frames=info.frames, init_bytes=info.init_bytes)
        clip = self.clips.add(at, shape, segment, latents=latents, pixels=pixels())
        self.tell_clip(clip)
        return clip

    def tell_clip(self, clip: StoredClip) -> None:
        """The clip is there and can be watched."""
        plan = self.plan()
        self._emit(
            Clip(
                job_id=self.job.id,
                index=clip.index,
                clips=(plan and plan.end) or 0,
                artifact=self.clips.artifact(clip),
                init_bytes=clip.init_bytes,
                prompt=clip.prompt,
                seed=clip.seed,
            )
        )

    def save_joined(
        self, clips: Sequence[StoredClip], held: np.ndarray[Any, Any] | None, *, crf: int
    ) -> Artifact:
        """All clips as one mp4, joined without encoding them again, and its poster.

        Args:
            clips: all of them, from the first on.
            held: (n, H, W, 3) uint8, frames that belong behind the last clip; None for none.
            crf: H.264 rate factor for those.
        """
        self.enter(Stage.SAVING)
        last = clips[-1]
        size, end = (last.width, last.height), last.start_frame + last.frames
        metadata = media.embedded(self.job, {**self.provenance, "clips": _told(clips)})
        segments = [self.clips.path(clip.segment) for clip in clips]
        with (
            self._storage.new_file(self.job, f"{self._name}.mp4") as file,
            self._storage.new_file(self.job, f"{self._name}.tail.mp4") as tail,
        ):
            if held is not None:
                media.write_segment(
                    tail.path, held, size=size, fps=last.fps, crf=crf, start_frame=end
                )
                segments.append(tail.path)
                end += len(held)
            media.join_segments(file.path, segments, metadata=metadata)
            stored = file.commit()
        first = media.read_video(segments[0], field="", size=size, fit="crop", frames=1)[0]
        return self._video(stored, size=size, frames=end, fps=last.fps, first=first)

    # --- inside --------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self.job.workflow}-{self.job.id[-12:]}"

    def _video(
        self,
        stored: StoredFile,
        *,
        size: tuple[int, int],
        frames: int,
        fps: int,
        first: Image.Image,
    ) -> Artifact:
        """The video as an artifact, after its poster is stored as well."""
        poster = self._poster(first)
        video = stored.artifact("video", "video/mp4", size=size, frames=frames, fps=float(fps))
        self.artifacts += [video, poster]
        return video

    def _poster(self, picture: Image.Image) -> Artifact:
        with self._storage.new_file(self.job, f"{self._name}.webp") as file:
            size = media.write_poster(file.path, picture)
            return file.commit().artifact("image", "image/webp", size=size)

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
                clip=self._clip,
            )
        )


def _told(clips: Sequence[StoredClip]) -> list[dict[str, Any]]:
    return [{"prompt": clip.prompt, "seed": clip.seed, "frames": clip.frames} for clip in clips]
