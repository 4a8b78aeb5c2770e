"""What `qwen` takes: pictures, size, mask, controlnet, steps and the like.

Ranges: reference/diffsynth section E.3; defaults: the original's, and Qwen Image Edit's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from core.catalog import AUTO
from core.workflows.lora_params import QwenLoras
from core.workflows.params import SEED_MAX, FileRef, Params, Tier, param
from core.workflows.qwen_sizes import SIDE, SIZE_LABELS, SIZES, Resolution

BASIC, ADVANCED, EXPERT = Tier.BASIC, Tier.ADVANCED, Tier.EXPERT

COMMANDS: Final = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)
"""What the text encoder reads as a command: a picture too many, or the prompt's end."""


class QwenParams(Params):
    """Inputs of `qwen`."""

    leading: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str = param(
        tier=BASIC,
        help="What shall change. Several pictures are called Picture 1, Picture 2, Picture 3.",
        widget="textarea",
        min_length=1,
        max_length=10_000,
    )
    negative_prompt: str = param(
        "",
        tier=BASIC,
        help="What to keep out of the picture. Has no effect at guidance 1.",
        widget="textarea",
        max_length=10_000,
    )
    edit_images: tuple[FileRef, ...] = param(
        tier=BASIC,
        title="Pictures",
        help="One to three. The first one is changed, the others are looked at.",
        widget="images",
        max_length=3,
    )
    mode: Literal["edit", "inpaint"] = param(
        "edit",
        tier=BASIC,
        help="Edit may change everything, inpaint only what the mask says.",
        labels={"edit": "Edit", "inpaint": "Inpaint"},
    )
    inpaint_mask: FileRef | None = param(
        None,
        tier=BASIC,
        title="Mask",
        help="White is made anew, black stays to the pixel. In the first picture's shape.",
        widget="mask",
        when={"mode": "inpaint"},
        validate_default=True,
    )
    feather: int = param(
        8,
        tier=BASIC,
        unit="px",
        title="Soft edge",
        help="Width of the band outside the mask in which old and new are blended.",
        when={"mode": "inpaint"},
        ge=0,
        le=128,
    )
    seed: int | None = param(
        None,
        tier=BASIC,
        help="The same seed and settings make the same picture. Random when left out.",
        widget="seed",
        ge=0,
        le=SEED_MAX,
    )
    resolution: Resolution = param(
        "auto",
        tier=BASIC,
        help="As the first picture: its size if that is near the model's, else its shape.",
        labels=SIZE_LABELS,
    )
    width: int | None = param(
        None,
        tier=BASIC,
        unit="px",
        help="Multiple of 16.",
        when={"resolution": "custom"},
        derived=True,
        grid=SIDE,
        validate_default=True,
    )
    height: int | None = param(
        None,
        tier=BASIC,
        unit="px",
        help="Multiple of 16.",
        when={"resolution": "custom"},
        derived=True,
        grid=SIDE,
        validate_default=True,
    )
    lora: QwenLoras = param(
        (),
        tier=BASIC,
        title="LoRAs",
        help="Files that change style or speed.",
        widget="lora",
    )
    model: str = param(
        AUTO, tier=ADVANCED, help="The weights that make the picture.", widget="select"
    )
    num_inference_steps: int = param(
        30,
        tier=ADVANCED,
        unit="steps",
        title="Steps",
        help="More is finer and slower. A single step gives nothing.",
        ge=2,
        le=200,
    )
    cfg_scale: float = param(
        4.0,
        tier=ADVANCED,
        title="Guidance",
        help="How strictly the prompt is followed. 1 takes half the time.",
        ge=1.0,
        le=20.0,
    )
    denoising_strength: float = param(
        1.0,
        tier=ADVANCED,
        help="How far the first picture is changed; 1 starts from noise.",
        gt=0.0,
        le=1.0,
    )
    fit: Literal["crop", "pad"] = param(
        "crop",
        tier=ADVANCED,
        title="Image fit",
        help="How the first picture is brought to another shape where the result keeps of it.",
        labels={"crop": "Crop the edges", "pad": "Pad with black"},
    )
    controlnet: Literal["none", "canny", "depth", "inpaint"] = param(
        "none",
        tier=ADVANCED,
        title="ControlNet",
        help="What else the new picture has to follow.",
        labels={
            "none": "None",
            "canny": "Canny: edges",
            "depth": "Depth map",
            "inpaint": "Inpaint: what is round the mask",
        },
        needs="controlnet",
    )
    controlnet_image: FileRef | None = param(
        None,
        tier=ADVANCED,
        title="ControlNet image",
        help="A depth map; for canny a picture with the edges, the first one when left out.",
        widget="image",
        when={"controlnet": ["canny", "depth"]},
        validate_default=True,
    )
    controlnet_scale: float = param(
        1.0,
        tier=ADVANCED,
        title="ControlNet strength",
        help="How much it counts.",
        when={"controlnet": True},
        ge=0.0,
        le=2.0,
    )
    controlnet_start: float = param(
        0.0,
        tier=ADVANCED,
        title="ControlNet start",
        help="Share of the steps after which it begins to count.",
        when={"controlnet": True},
        ge=0.0,
        le=1.0,
    )
    controlnet_end: float = param(
        1.0,
        tier=ADVANCED,
        title="ControlNet end",
        help="Share of the steps after which it no longer counts.",
        when={"controlnet": True},
        ge=0.0,
        le=1.0,
    )
    schedule: Literal["regular", "lightning"] = param(
        "regular",
        tier=EXPERT,
        help="Noise levels of the steps. Lightning is for its LoRAs with 4 or 8 steps.",
        labels={"regular": "Regular", "lightning": "Lightning"},
    )
    exponential_shift_mu: float | None = param(
        None,
        tier=EXPERT,
        title="Shift",
        help="Moves the steps towards noise. By size when left out, 0.5 to 0.9.",
        widget="number",
        ge=0.0,
        le=5.0,
    )
    tiled: bool = param(
        False, tier=EXPERT, title="Tiled VAE", help="Less memory for encoding and decoding."
    )
    tile_size: tuple[int, int] = param(
        (128, 128),
        tier=EXPERT,
        unit="latent px",
        help="Height and width of a tile; 1 is 8 pixels.",
        widget="pair",
        when={"tiled": True},
    )
    tile_stride: tuple[int, int] = param(
        (64, 64),
        tier=EXPERT,
        unit="latent px",
        help="Step from tile to tile; smaller than the tile.",
        widget="pair",
        when={"tiled": True},
    )

    @classmethod
    def layered(cls, defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """A size that was sent means "custom", unless a resolution was sent as well."""
        values = super().layered(defaults, raw)
        if raw.get("resolution") is None and _sized(raw):
            values["resolution"] = "custom"
        return values

    @model_validator(mode="before")
    @classmethod
    def _size_of_preset(cls, values: Any) -> Any:
        """A preset gives width and height."""
        preset = values.get("resolution") if isinstance(values, dict) else None
        size = SIZES.get(preset) if isinstance(preset, str) else None
        if size is None or _sized(values):
            return values
        return {**values, "width": size[0], "height": size[1]}

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _no_commands(cls, value: str, info: ValidationInfo) -> str:
        if found := [command for command in COMMANDS if command in value]:
            raise ValueError(
                f"{info.field_name} holds {found[0]!r}, which the text encoder reads as a command: "
                "leave it out"
            )
        return value

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("prompt is blank: say what shall change")
        return value

    @field_validator("edit_images")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Not min_length, which pydantic also misses where one of the items is refused.
        if not value:
            raise ValueError("edit_images is empty: give one to three pictures")
        return value

    @field_validator("inpaint_mask")
    @classmethod
    def _mask_of_inpaint(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("mode") == "inpaint":
            raise ValueError(
                "inpaint_mask is required when mode is 'inpaint': a picture in the first one's "
                "shape, white where it is to be made anew"
            )
        return value

    @field_validator("width", "height")
    @classmethod
    def _multiple_of_16(cls, value: int | None, info: ValidationInfo) -> int | None:
        name = str(info.field_name)
        if value is not None:
            return SIDE.check(name, value)
        if info.data.get("resolution") == "custom":
            raise ValueError(f"{name} is required when resolution is 'custom'")
        return value

    @field_validator("height")
    @classmethod
    def _agrees_with_preset(cls, value: int | None, info: ValidationInfo) -> int | None:
        preset, width = info.data.get("resolution", "custom"), info.data.get("width")
        known = "width" in info.data and preset != "custom"
        if known and (width, value) != SIZES.get(preset, (None, None)):
            raise ValueError(
                f"height={value} and width={width} contradict resolution {preset!r}: "
                "leave them out, or set resolution to 'custom'"
            )
        return value

    @field_validator("controlnet")
    @classmethod
    def _mask_of_controlnet(cls, value: str, info: ValidationInfo) -> str:
        if value == "inpaint" and info.data.get("mode") == "edit":
            raise ValueError("controlnet='inpaint' needs mode 'inpaint' and its mask")
        return value

    @field_validator("controlnet_image")
    @classmethod
    def _depth_is_given(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("controlnet") == "depth":
            raise ValueError("controlnet_image is required when controlnet is 'depth': a depth map")
        return value

    @field_validator("controlnet_end")
    @classmethod
    def _after_start(cls, value: float, info: ValidationInfo) -> float:
        start, steps = info.data.get("controlnet_start"), info.data.get("num_inference_steps")
        if start is None or steps is None:
            return value
        if value <= start:
            raise ValueError(f"controlnet_end={value} must be above controlnet_start={start}")
        # As DiffSynth counts: step i of n is at i / (n - 1).
        if not any(start <= step / (steps - 1) <= value for step in range(steps)):
            raise ValueError(
                f"controlnet_end={value}: none of {steps} steps lies between controlnet_start="
                f"{start} and it, so it would not count at all"
            )
        return value

    @field_validator("tile_size", "tile_stride")
    @classmethod
    def _tile(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        if not all(8 <= side <= 256 for side in value):
            raise ValueError(f"{info.field_name}={value}: each side must be from 8 to 256")
        return value

    @field_validator("tile_stride")
    @classmethod
    def _stride_below_size(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        size = info.data.get("tile_size")
        if size and not all(step < side for step, side in zip(value, size, strict=True)):
            raise ValueError(f"tile_stride={value} must be smaller than tile_size={size}")
        return value


def _sized(values: Mapping[str, Any]) -> bool:
    """Whether a width or height was sent."""
    return values.get("width") is not None or values.get("height") is not None
