"""SVI 2.0 Pro: one picture and a list of prompts become one long video, clip by clip.

    anchor picture ─┬─> clip 0 ──last latents──> clip 1 ──last latents──> ... ──join──> mp4
                    └──────────────────────────────┴── anchors every clip

Each clip is stored before the next one begins, and can be watched, branched from and gone on from.
What has not begun can be changed while the job runs (its plan); a job that lost its worker goes on
at the next clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import numpy as np
from pydantic import field_validator
from pydantic_core.core_schema import ValidationInfo

from core.clips import ClipPlace, StoredClip, place
from core.errors import InvalidParams, Problem
from core.media.colour import ColourMatch, statistics
from core.media.seams import Seam, SeamKind
from core.protocol import Plan, Stage
from core.run import Run
from core.workflows.base import PipelineSpec, Workflow
from core.workflows.params import SEED_MAX, ClipRef, Grid, Params, clip_of, param
from core.workflows.wan import ADVANCED, BASIC, WanParams

if TYPE_CHECKING:
    from PIL import Image

    from core.pipelines.svi_video import SviClips
    from core.pipelines.wan_video import WanVideo

SEED_STEP: Final = 42
"""Clip i has the seed `seed + 42·i`: with one seed for all, SVI repeats motion and degrades."""
CLIPS_MAX: Final = 1000
MOTION: Final = Grid(step=4, offset=1, low=5, high=13)


class SviParams(WanParams):
    """Inputs of `svi`: those of every Wan workflow, and the clips."""

    leading: ClassVar[tuple[str, ...]] = ("prompts", "num_clips")

    prompts: tuple[str, ...] = param(
        tier=BASIC,
        help="What happens, clip by clip. With more clips than prompts, the last one goes on. "
        "Each clip has a seed of its own, 42 above that of the one before.",
        widget="texts",
        counted_by="num_clips",
        min_length=1,
        max_length=CLIPS_MAX,
    )
    infinite_mode: bool = param(
        False,
        tier=ADVANCED,
        title="Endless",
        help="Goes on, clip after clip, until it is told to finish.",
    )
    num_clips: int = param(
        10,
        tier=BASIC,
        unit="clips",
        title="Clips",
        widget="number",
        help="How many clips are made.",
        when={"infinite_mode": False},
        ge=1,
        le=CLIPS_MAX,
        validate_default=True,
    )
    num_motion_frames: int = param(
        5,
        tier=ADVANCED,
        unit="frames",
        title="Motion frames",
        help="Frames of the clip before that a clip starts from. SVI 2.0 Pro is trained on 5.",
        grid=MOTION,
        validate_default=True,
    )
    seam: SeamKind = param(
        "cut",
        tier=ADVANCED,
        help="How clips are joined where they overlap.",
        labels={"cut": "Cut", "blend": "Blend over the overlap"},
    )
    colour_match: float = param(
        0.0,
        tier=ADVANCED,
        help="Holds colours to the start image against drift, for a scene that stays; 0 is off.",
        ge=0.0,
        le=1.0,
    )
    continue_from: ClipRef | None = param(
        None,
        tier=ADVANCED,
        title="Continues",
        help="A clip of an earlier job: this one keeps it and all before it, and goes on.",
        widget="clip",
    )

    @property
    def motion_slots(self) -> int:
        """Latent frames that a clip starts from: the last 4·M + 1 frames of the one before."""
        return (self.num_motion_frames - 1) // 4

    @field_validator("num_motion_frames")
    @classmethod
    def _less_than_a_clip(cls, value: int, info: ValidationInfo) -> int:
        MOTION.check("num_motion_frames", value)
        frames, fewest = info.data.get("num_frames"), value + 4
        if frames is not None and frames < fewest:
            raise ValueError(
                f"num_motion_frames={value} overlaps a whole clip of {frames} frames: "
                f"num_frames must be at least {fewest}"
            )
        return value

    @field_validator("num_clips")
    @classmethod
    def _a_clip_for_each_prompt(cls, value: int, info: ValidationInfo) -> int:
        prompts = len(info.data.get("prompts", ()))
        if prompts > value and not info.data.get("infinite_mode"):
            raise ValueError(
                f"num_clips={value}: there are {prompts} prompts: leave some out, or set "
                f"num_clips to {prompts}"
            )
        return value

    @field_validator("prompts")
    @classmethod
    def _each_says_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, prompt in enumerate(value, start=1):
            if not prompt.strip():
                raise ValueError(f"prompts: number {number} is blank: say what happens in the clip")
            if len(prompt) > 10_000:
                raise ValueError(f"prompts: number {number} is longer than 10000 characters")
        return value


@dataclass(slots=True)
class _Film:
    """What goes from clip to clip while a job runs."""

    clips: list[StoredClip]
    seam: Seam
    colour: ColourMatch

    @property
    def last(self) -> StoredClip | None:
        return self.clips[-1] if self.clips else None

    def pixels(self) -> dict[str, np.ndarray[Any, Any]]:
        """What the next clip's seam and colours start from."""
        found = {"held": self.seam.held, "running": self.colour.running}
        return {name: array for name, array in found.items() if array is not None}


class Svi(Workflow[SviParams]):
    """Endless video with SVI 2.0 Pro on Wan 2.2."""

    id: ClassVar[str] = "svi"
    title: ClassVar[str] = "Endless video"
    summary: ClassVar[str] = "A picture and a list of prompts become one long video, clip by clip."
    params: ClassVar[type[Params]] = SviParams

    def plan(self, params: SviParams) -> Plan:
        """One clip a prompt, and the last prompt goes on."""
        return Plan(
            prompts=params.prompts,
            num_clips=None if params.infinite_mode else params.num_clips,
            first=clip_of(params.continue_from)[1] + 1 if params.continue_from else 0,
        )

    def planned(self, plan: Plan) -> dict[str, Any]:
        """The params of a job whose plan was changed."""
        endless = plan.num_clips is None
        clips = {} if plan.num_clips is None else {"num_clips": plan.num_clips}
        return {"prompts": plan.prompts, "infinite_mode": endless, **clips}

    def check_continuation(self, params: SviParams, source: SviParams) -> None:
        """The clips of one video have one size and one frame rate."""
        _same_shape((*params.size, params.fps), (*source.size, source.fps))

    def run(self, params: SviParams, run: Run) -> None:
        """Find what is made, make clip after clip, join them."""
        # 1. What can be refused is refused before anything is loaded.
        anchor = run.image("input_image", params.input_image, size=params.size, fit=params.fit)
        settings = _settings(params)
        kept = _kept(params, run)
        # 2. What an earlier attempt had made is not made again.
        clips = [*kept, *run.clips.made(kept[-1] if kept else None, settings)]
        for clip in clips:
            run.tell_clip(clip)
        run.metrics["clips_found"] = len(clips)
        film = _film(params, run, clips, anchor)
        # 3. Clip after clip, as the plan wants it now.
        maker: SviClips | None = None
        while _plan(run).wants(len(film.clips)):
            maker = maker or self._maker(params, run, film, anchor)
            at = _next(params, run, film, settings)
            film.clips.append(_make(params, run, maker, film, at))
        # 4. One mp4 of all, without encoding anything again.
        run.save_joined(film.clips, film.seam.held, crf=params.crf)

    def _maker(self, params: SviParams, run: Run, film: _Film, anchor: Image.Image) -> SviClips:
        """The pipeline, loaded, with SVI's LoRAs on it, after the last clip."""
        spec = PipelineSpec(family="wan_video", model=params.model)
        pipeline = cast("WanVideo", run.pipeline(spec, params.lora_parts()))
        maker = pipeline.svi(
            run,
            motion_slots=params.motion_slots,
            inputs={
                **params.sampling,  # type: ignore[typeddict-item]  # names that are checked there
                "prompt": "",
                "input_image": anchor,
                "end_image": None,
                "input_video": None,
                "denoising_strength": 1.0,
                "seed": 0,
            },
        )
        if film.last:
            maker.restore(run.clips.path(film.last.latents))
        return maker


def clip_seed(seed: int, index: int) -> int:
    """The seed of clip `index`, counted over the whole video."""
    return (seed + SEED_STEP * index) % (SEED_MAX + 1)


def _settings(params: SviParams) -> dict[str, Any]:
    """All that decides how a clip looks, but its prompt and seed and the clips before it."""
    elsewhere = {"prompts", "seed", "num_clips", "infinite_mode", "continue_from", "preset"}
    return params.model_dump(mode="json", exclude=elsewhere)


def _kept(params: SviParams, run: Run) -> list[StoredClip]:
    """The clips of the job that is continued, as our own."""
    if params.continue_from is None:
        return []
    source, index = clip_of(params.continue_from)
    kept = run.clips.kept(source, index, field="continue_from")
    last = kept[-1]
    _same_shape((*params.size, params.fps), (last.width, last.height, last.fps))
    return kept


def _same_shape(given: tuple[int, int, int], found: tuple[int, int, int]) -> None:
    """Refuse a clip that can't stand in one video with what this job makes."""
    if given != found:
        message = (
            f"continue_from: the clip is {found[0]} x {found[1]} at {found[2]} frames/s, this job "
            f"makes {given[0]} x {given[1]} at {given[2]}: they must be the same"
        )
        raise InvalidParams(message, problems=(Problem(field="continue_from", message=message),))


def _film(params: SviParams, run: Run, clips: list[StoredClip], anchor: Image.Image) -> _Film:
    """Where the video stands after `clips`."""
    pixels = run.clips.pixels(clips[-1]) if clips else {}
    seam = Seam(params.seam, params.num_motion_frames, held=pixels.get("held"), begun=bool(clips))
    colour = ColourMatch(statistics(np.asarray(anchor)), params.colour_match, pixels.get("running"))
    return _Film(clips=clips, seam=seam, colour=colour)


def _plan(run: Run) -> Plan:
    plan = run.plan()
    assert plan is not None  # Workflow.plan gives every job one
    return plan


def _next(params: SviParams, run: Run, film: _Film, settings: dict[str, Any]) -> ClipPlace:
    """The clip that is made now, with the prompt that is wanted now."""
    index = len(film.clips)
    run.begin_clip(index)
    run.enter(Stage.ENCODING)  # told before the plan is read: what is promised then still counts
    assert params.seed is not None
    prompt, seed = _plan(run).prompt(index), clip_seed(params.seed, index)
    return place(film.last, prompt=prompt, seed=seed, settings=settings)


def _make(params: SviParams, run: Run, maker: SviClips, film: _Film, at: ClipPlace) -> StoredClip:
    """Encode, denoise, decode, store one clip."""
    latents = maker.denoise(prompt=at.prompt, seed=at.seed)
    added = film.seam.frames_added(params.num_frames)
    frames = film.seam.clip(film.colour.applied(maker.decode(latents)))
    return run.save_clip(
        at,
        frames,
        size=params.size,
        frames_added=added,
        fps=params.fps,
        crf=params.crf,
        latents=maker.store,
        pixels=film.pixels,
    )
