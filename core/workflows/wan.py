"""What all workflows on Wan 2.2 take: picture, size, length, steps and the like.

Ranges: reference/diffsynth section E.1; defaults: Wan 2.2 I2V A14B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from core.catalog import AUTO
from core.workflows.lora_params import WanLoras
from core.workflows.params import SEED_MAX, FileRef, Grid, Params, Tier, param

BASIC, ADVANCED, EXPERT = Tier.BASIC, Tier.ADVANCED, Tier.EXPERT

SIDE: Final = Grid(step=16, offset=0, low=64, high=1920)
FRAMES: Final = Grid(step=4, offset=1, low=5, high=241)

Resolution = Literal[
    "480x832", "832x480", "720x1280", "1280x720", "624x624", "256x256", "144x256", "custom"
]
# Named height x width, as Wan's own settings are; the value is (width, height) in pixels.
SIZES: Final[dict[str, tuple[int, int]]] = {
    "480x832": (832, 480),
    "832x480": (480, 832),
    "720x1280": (1280, 720),
    "1280x720": (720, 1280),
    "624x624": (624, 624),
    "256x256": (256, 256),
    "144x256": (256, 144),
}
_SIZE_LABELS: Final = {
    "480x832": "832 × 480 landscape",
    "832x480": "480 × 832 portrait",
    "720x1280": "1280 × 720 landscape HD",
    "1280x720": "720 × 1280 portrait HD",
    "624x624": "624 × 624 square",
    "256x256": "256 × 256 square, small",
    "144x256": "256 × 144 landscape, small",
    "custom": "Custom size",
}


_SAMPLING: Final = (
    *("negative_prompt", "width", "height", "num_frames", "num_inference_steps", "cfg_scale"),
    *("sigma_shift", "switch_dit_boundary", "cfg_merge", "step_cache"),
)


class WanParams(Params):
    """Inputs that every Wan workflow has."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def vae_tiles(self) -> dict[str, Any]:
        """How the VAE is tiled, as encoding and decoding take it."""
        return {name: getattr(self, name) for name in ("tiled", "tile_size", "tile_stride")}

    @property
    def sampling(self) -> dict[str, Any]:
        """What `WanVideo.denoise` takes of these, by the same names."""
        return {name: getattr(self, name) for name in _SAMPLING} | self.vae_tiles

    negative_prompt: str = param(
        "",
        tier=BASIC,
        help="What to keep out of the picture. Has no effect at guidance 1.",
        widget="textarea",
        max_length=10_000,
    )
    input_image: FileRef = param(
        tier=BASIC, help="The first frame.", title="Start image", widget="image"
    )
    seed: int | None = param(
        None,
        tier=BASIC,
        help="The same seed and settings make the same video. Random when left out.",
        widget="seed",
        ge=0,
        le=SEED_MAX,
    )
    resolution: Resolution = param(
        "480x832", tier=BASIC, help="Size of the video.", labels=_SIZE_LABELS
    )
    width: int = param(
        832,
        tier=BASIC,
        unit="px",
        help="Multiple of 16.",
        when={"resolution": "custom"},
        derived=True,
        grid=SIDE,
    )
    height: int = param(
        480,
        tier=BASIC,
        unit="px",
        help="Multiple of 16.",
        when={"resolution": "custom"},
        derived=True,
        grid=SIDE,
    )
    lora: WanLoras = param(
        (),
        tier=BASIC,
        title="LoRAs",
        help="Files that change style, motion or speed, each for one expert or for both.",
        widget="lora",
    )
    model: str = param(
        AUTO, tier=ADVANCED, help="The weights that make the video.", widget="select"
    )
    num_frames: int = param(
        81,
        tier=ADVANCED,
        unit="frames",
        title="Frames",
        help="Length: 4n + 1 frames. Wan 2.2 is trained on 81.",
        grid=FRAMES,
    )
    fps: int = param(
        16,
        tier=ADVANCED,
        unit="frames/s",
        title="Frame rate",
        help="Playback speed of the file. Wan 2.2 is trained at 16.",
        ge=1,
        le=60,
    )
    num_inference_steps: int = param(
        50,
        tier=ADVANCED,
        unit="steps",
        title="Steps",
        help="More is finer and slower.",
        ge=1,
        le=200,
    )
    cfg_scale: float = param(
        5.0,
        tier=ADVANCED,
        title="Guidance",
        help="How strictly the prompt is followed. 1 takes half the time.",
        ge=1.0,
        le=20.0,
    )
    fit: Literal["crop", "pad"] = param(
        "crop",
        tier=ADVANCED,
        title="Image fit",
        help="How a picture of another shape is brought to size.",
        labels={"crop": "Crop the edges", "pad": "Pad with black"},
    )
    crf: int = param(
        17,
        tier=ADVANCED,
        title="mp4 quality",
        unit="CRF",
        help="H.264 rate factor: lower is better and larger; 17 looks lossless.",
        ge=0,
        le=40,
    )
    sigma_shift: float = param(
        5.0,
        tier=EXPERT,
        help="Shifts steps towards the noisy end.",
        ge=1.0,
        le=12.0,
    )
    switch_dit_boundary: float = param(
        0.9,
        tier=EXPERT,
        title="Expert boundary",
        help="Noise level, 0 to 1, below which the low-noise expert takes over.",
        ge=0.0,
        le=1.0,
        needs="two_experts",
    )
    tiled: bool = param(
        True, tier=EXPERT, title="Tiled VAE", help="Less memory for encoding and decoding."
    )
    tile_size: tuple[int, int] = param(
        (30, 52),
        tier=EXPERT,
        unit="latent px",
        help="Height and width of a tile; 1 is 8 pixels.",
        widget="pair",
        when={"tiled": True},
    )
    tile_stride: tuple[int, int] = param(
        (15, 26),
        tier=EXPERT,
        unit="latent px",
        help="Step from tile to tile; smaller than the tile.",
        widget="pair",
        when={"tiled": True},
    )

    cfg_merge: bool = param(
        False,
        tier=EXPERT,
        title="Both sides at once",
        help="Prompt and negative prompt in one forward of two: more memory, often less time.",
        needs="cfg_merge",
    )
    step_cache: float = param(
        0.0,
        tier=EXPERT,
        title="Step cache",
        help="Steps whose predicted change stays below this share are not computed: 0.05 is "
        "careful, 0 is off.",
        needs="step_cache",
        ge=0.0,
        le=1.0,
    )

    @classmethod
    def layered(cls, defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """A size that was sent replaces a preset that is only the model's default."""
        values = super().layered(defaults, raw)
        if "resolution" not in raw and ("width" in raw or "height" in raw):
            values["resolution"] = "custom"
        return values

    @model_validator(mode="before")
    @classmethod
    def _size_of_preset(cls, values: Any) -> Any:
        """A preset gives width and height; a free width and height mean "custom"."""
        if not isinstance(values, dict):
            return values
        preset = values.get("resolution")
        if preset is None and ("width" in values or "height" in values):
            return {**values, "resolution": "custom"}
        size = SIZES.get(preset if isinstance(preset, str) else "480x832")
        if size is None:
            return values
        return {"width": size[0], "height": size[1], **values}

    @field_validator("width", "height")
    @classmethod
    def _multiple_of_16(cls, value: int, info: ValidationInfo) -> int:
        return SIDE.check(str(info.field_name), value)

    @field_validator("num_frames")
    @classmethod
    def _four_n_plus_one(cls, value: int) -> int:
        return FRAMES.check("num_frames", value)

    @field_validator("height")
    @classmethod
    def _agrees_with_preset(cls, value: int, info: ValidationInfo) -> int:
        preset, width = info.data.get("resolution"), info.data.get("width")
        size = SIZES.get(preset or "")
        if size and width is not None and (width, value) != size:
            raise ValueError(
                f"height={value} and width={width} contradict resolution {preset!r}: "
                "leave them out, or set resolution to 'custom'"
            )
        return value

    @field_validator("tile_size", "tile_stride")
    @classmethod
    def _tile(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        if not all(4 <= side <= 256 for side in value):
            raise ValueError(f"{info.field_name}={value}: each side must be from 4 to 256")
        return value

    @field_validator("cfg_merge")
    @classmethod
    def _two_sides(cls, value: bool, info: ValidationInfo) -> bool:
        # DiffSynth would double the latents, and go on with both.
        if value and info.data.get("cfg_scale") == 1:
            raise ValueError("cfg_merge=True needs cfg_scale above 1: at 1 there is only one side")
        return value

    @field_validator("tile_stride")
    @classmethod
    def _stride_below_size(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        size = info.data.get("tile_size")
        if size and not all(step < side for step, side in zip(value, size, strict=True)):
            raise ValueError(f"tile_stride={value} must be smaller than tile_size={size}")
        return value
