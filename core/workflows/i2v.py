"""Wan 2.2 image-to-video: one picture and a prompt become one mp4.

picture ──fit──> encode ──> denoise (high, then low expert) ──> decode ──> mp4 + poster
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import field_validator

from core.protocol import Stage
from core.run import Run
from core.workflows.base import PipelineSpec, Workflow
from core.workflows.params import FileRef, Params, param
from core.workflows.wan import ADVANCED, BASIC, WanParams

if TYPE_CHECKING:
    from core.pipelines.wan_video import WanVideo


class I2VParams(WanParams):
    """Inputs of `i2v`."""

    leading: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str = param(
        tier=BASIC,
        help="What happens in the video: subject, motion, camera, light.",
        widget="textarea",
        min_length=1,
        max_length=10_000,
    )
    end_image: FileRef | None = param(
        None,
        tier=ADVANCED,
        help="The last frame; the video moves from the start image to it.",
        widget="image",
        needs="end_image",
    )
    input_video: FileRef | None = param(
        None,
        tier=ADVANCED,
        help="A video to change. Needs at least as many frames as the result.",
        widget="video",
        needs="input_video",
    )
    denoising_strength: float = param(
        1.0,
        tier=ADVANCED,
        help="How far the input video is changed; 1 replaces it.",
        when={"input_video": True},
        gt=0.0,
        le=1.0,
    )

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("prompt is blank: say what happens in the video")
        return value


class I2V(Workflow[I2VParams]):
    """Image-to-video with Wan 2.2."""

    id: ClassVar[str] = "i2v"
    title: ClassVar[str] = "Image to video"
    summary: ClassVar[str] = "A picture and a prompt become a video."
    params: ClassVar[type[Params]] = I2VParams

    def run(self, params: I2VParams, run: Run) -> None:
        """Load, encode, denoise, decode, save."""
        size = (params.width, params.height)
        # 1. Inputs first: a bad picture must not cost a model load.
        image = run.image("input_image", params.input_image, size=size, fit=params.fit)
        end = params.end_image and run.image(
            "end_image", params.end_image, size=size, fit=params.fit
        )
        video = params.input_video and run.video(
            "input_video", params.input_video, size=size, fit=params.fit, frames=params.num_frames
        )
        # 2. The pipeline, shared by all jobs with the same spec.
        spec = PipelineSpec(family="wan_video", model=params.model)
        pipeline = cast("WanVideo", run.pipeline(spec))
        # 3. Encode and denoise.
        run.enter(Stage.ENCODING)
        latents = pipeline.denoise(
            run,
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            input_image=image,
            end_image=end or None,
            input_video=video or None,
            denoising_strength=params.denoising_strength,
            seed=cast("int", params.seed),
            width=params.width,
            height=params.height,
            num_frames=params.num_frames,
            num_inference_steps=params.num_inference_steps,
            cfg_scale=params.cfg_scale,
            sigma_shift=params.sigma_shift,
            switch_dit_boundary=params.switch_dit_boundary,
            tiled=params.tiled,
            tile_size=params.tile_size,
            tile_stride=params.tile_stride,
        )
        # 4. Decode, and encode the mp4 as frames come.
        frames = pipeline.decode(
            run,
            latents,
            tiled=params.tiled,
            tile_size=params.tile_size,
            tile_stride=params.tile_stride,
        )
        run.save_video(
            frames, size=size, frames_total=params.num_frames, fps=params.fps, crf=params.crf
        )
