"""The Wan demo family: the plain demo, and one small model for each variant of Wan.

    <models_dir>/base/diffbox/
        wan-demo/          both experts, text encoder, VAE, tokenizer
        wan-demo-camera/   both experts of a Fun-Control-Camera model
        wan-demo-2.1/      the one model of Wan 2.1, its image encoder
        wan-demo-speed/    the one model of a text-to-video Wan 2.1, its motion controller

The variants take text encoder, VAE and tokenizer from the plain demo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from core.pipelines import demo, demo_files, demo_weights
from core.pipelines.demo_files import DemoModel, Shapes, shapes_of
from core.pipelines.demo_image_encoder import DemoImageEncoder
from core.pipelines.demo_weights import Array
from core.pipelines.stock import (
    skip_model_initialization,
    wan_video_dit,
    wan_video_motion_controller,
)

RECIPE: Final = "1"
"""Counts up when a variant's weights change, so that files of an older recipe are replaced."""

# As DiffSynth's settings of the real models, at the demo's size.
CAMERA_DIT: Final[Mapping[str, Any]] = {**demo.DIT, "add_control_adapter": True}
IMAGE_DIT: Final[Mapping[str, Any]] = {
    **demo.DIT,
    "has_image_input": True,
    "require_clip_embedding": True,
}
TEXT_DIT: Final[Mapping[str, Any]] = {**demo.DIT, "in_dim": 16, "require_clip_embedding": True}
_SLOW_WAVES: Final = 12
"""These turn by at most half a circle from the first step to the last."""
MOTION: Final[Mapping[str, Any]] = {"freq_dim": 64, "dim": demo.DIT["dim"]}


def ensure(models_dir: Path, model_id: str) -> None:
    """Make a demo model's files that are missing or damaged. Safe with several workers at once.

    Args:
        models_dir: below which weights lie.
        model_id: of a Wan demo in the catalog.
    """
    demo.ensure(models_dir)
    if model_id in _FILES:
        folder = models_dir / "base" / "diffbox" / model_id
        demo_files.ensure(folder, RECIPE, _FILES[model_id], {})


def register() -> None:
    """Tell DiffSynth's loader how to recognise the files. Doing it twice is harmless."""
    demo.register()
    demo_files.register(
        (
            *(_dit(settings) for settings in (CAMERA_DIT, IMAGE_DIT, TEXT_DIT)),
            DemoModel(
                shapes=_image_encoder_shapes(),
                name="wan_video_image_encoder",
                model_class=f"{DemoImageEncoder.__module__}.{DemoImageEncoder.__name__}",
            ),
            DemoModel(
                shapes=_motion_shapes(),
                name="wan_video_motion_controller",
                model_class="diffsynth.models.wan_video_motion_controller.WanMotionControllerModel",
                settings=MOTION,
            ),
        )
    )


def _dit(settings: Mapping[str, Any]) -> DemoModel:
    return DemoModel(
        shapes=_dit_shapes(settings),
        name="wan_video_dit",
        model_class="diffsynth.models.wan_video_dit.WanModel",
        settings=settings,
    )


def _dit_shapes(settings: Mapping[str, Any]) -> Shapes:
    with skip_model_initialization():
        return shapes_of(wan_video_dit.WanModel(**settings))


@cache
def _image_encoder_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(DemoImageEncoder())


@cache
def _motion_shapes() -> Shapes:
    with skip_model_initialization():
        return shapes_of(wan_video_motion_controller.WanMotionControllerModel(**MOTION))


def _expert(role: str, settings: Mapping[str, Any]) -> dict[str, Array]:
    weights = demo_weights.expert(role, _dit_shapes(settings), settings)
    # Trained models change little from step to step, which is what caches live on; random weights
    # on the fast waves of the time embedding (cosines, then sines, slowest last) do not.
    waves = int(settings["freq_dim"]) // 2
    fast = waves - _SLOW_WAVES
    for first in (0, waves):
        weights["time_embedding.0.weight"][:, first : first + fast] = 0
    return weights


_FILES: Final[Mapping[str, Mapping[str, Callable[[], dict[str, Array]]]]] = {
    "wan-demo-camera": {
        "high_noise_model.safetensors": lambda: _expert("high", CAMERA_DIT),
        "low_noise_model.safetensors": lambda: _expert("low", CAMERA_DIT),
    },
    "wan-demo-2.1": {
        "diffusion_model.safetensors": lambda: _expert("high", IMAGE_DIT),
        "image_encoder.safetensors": lambda: demo_weights.plain(
            "image_encoder", _image_encoder_shapes()
        ),
    },
    "wan-demo-speed": {
        "diffusion_model.safetensors": lambda: _expert("high", TEXT_DIT),
        "motion_controller.safetensors": lambda: demo_weights.plain("motion", _motion_shapes()),
    },
}
