"""Wan 2.2 image-to-video: one picture and a prompt become one mp4.

picture ──fit──> encode ──> denoise (high, then low expert) ──> decode ──> mp4 + poster
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import field_validator
from pydantic_core.core_schema import ValidationInfo

from core import catalog
from core.catalog import ModelRef
from core.protocol import Stage
from core.run import Run
from core.workflows.base import PipelineSpec, Workflow
from core.workflows.camera import (
    CAMERA_LABELS,
    ORIGIN,
    CameraDirection,
    checked_origin,
    origin_text,
    pose,
)
from core.workflows.params import FileRef, Params, param
from core.workflows.wan import ADVANCED, BASIC, EXPERT, WanParams

if TYPE_CHECKING:
    from core.pipelines.wan_variants import VariantInputs
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
        freed_by="still_input",
        gt=0.0,
        le=1.0,
    )
    camera_direction: CameraDirection = param(
        "none",
        tier=ADVANCED,
        title="Camera",
        help="Where the camera goes.",
        labels=CAMERA_LABELS,
        needs="camera",
    )
    camera_speed: float = param(
        0.0185,
        tier=ADVANCED,
        help="How far the camera goes from frame to frame.",
        when={"camera_direction": True},
        needs="camera",
        ge=0.0,
        le=1.0,
    )
    camera_origin: str = param(
        ORIGIN,
        tier=EXPERT,
        help="The camera's first pose, 19 numbers: frame, fx, fy, cx, cy, 0, 0, 3 x 4 matrix.",
        when={"camera_direction": True},
        needs="camera",
        max_length=1000,
    )
    motion_bucket_id: int | None = param(
        None,
        tier=ADVANCED,
        title="Motion",
        help="How much moves, 0 to 100. As the prompt has it when left out.",
        widget="number",
        needs="motion_bucket",
        ge=0,
        le=100,
    )
    tea_cache_l1_thresh: float | None = param(
        None,
        tier=EXPERT,
        title="TeaCache threshold",
        help="Steps that change less are not computed; 0.05 is careful, 0.3 is fast. "
        "Off when left out.",
        widget="number",
        needs="tea_cache",
        gt=0.0,
        le=1.0,
    )

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("prompt is blank: say what happens in the video")
        return value

    @field_validator("camera_origin", mode="before")
    @classmethod
    def _numbers_too(cls, value: Any) -> Any:
        return origin_text(value)

    @field_validator("camera_origin")
    @classmethod
    def _a_pose(cls, value: str) -> str:
        return checked_origin(value)

    @field_validator("tea_cache_l1_thresh")
    @classmethod
    def _not_merged(cls, value: float | None, info: ValidationInfo) -> float | None:
        # DiffSynth would leave TeaCache out without a word.
        if value is not None and info.data.get("cfg_merge"):
            raise ValueError(
                f"tea_cache_l1_thresh={value} can't be used with cfg_merge: leave one of them out"
            )
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
        row = catalog.model(params.model)
        still = "still_input" in row.capabilities
        spec = PipelineSpec(family="wan_video", model=params.model)
        pipeline = cast("WanVideo", run.pipeline(spec, params.lora_parts()))
        # 3. Encode and denoise.
        run.enter(Stage.ENCODING)
        latents = pipeline.denoise(
            run,
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            input_image=None if still else image,
            end_image=end or None,
            input_video=[image] * params.num_frames if still else video or None,
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
            **_variant(params, row),
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


def _variant(params: I2VParams, row: ModelRef) -> VariantInputs:
    """What not every model takes."""
    given: VariantInputs = {"cfg_merge": params.cfg_merge, "step_cache": params.step_cache}
    if "camera" in row.capabilities:
        given["camera_direction"] = params.camera_direction
        given["camera_speed"] = params.camera_speed
        given["camera_origin"] = pose(params.camera_origin)
    if params.motion_bucket_id is not None:
        given["motion_bucket_id"] = params.motion_bucket_id
    if params.tea_cache_l1_thresh is not None:
        given["tea_cache_l1_thresh"] = params.tea_cache_l1_thresh
        given["tea_cache_id"] = row.settings["tea_cache_id"]
    return given
