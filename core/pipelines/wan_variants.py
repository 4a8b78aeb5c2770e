"""What only some Wan models take, and how DiffSynth's call wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from core.errors import ModelMissing

_NAMES: Final = {
    "switch_dit_boundary": "switch_DiT_boundary",
    "camera_direction": "camera_control_direction",
    "camera_speed": "camera_control_speed",
    "camera_origin": "camera_control_origin",
    "tea_cache_id": "tea_cache_model_id",
}
# DiffSynth looks for "Left", "Up", … in the word, so one with none of them is a camera that
# stands still. Leaving the direction out is no choice: these models are trained with a camera, and
# those of Wan 2.1 take the picture by the camera's input only.
_DIRECTIONS: Final = {
    "none": "Still",
    "left": "Left",
    "right": "Right",
    "up": "Up",
    "down": "Down",
    "left_up": "LeftUp",
    "left_down": "LeftDown",
    "right_up": "RightUp",
    "right_down": "RightDown",
    "in": "In",
    "out": "Out",
}


class VariantInputs(TypedDict, total=False):
    """What `WanVideo.denoise` may be given as well; what is left out is off.

    Attributes:
        cfg_merge: both sides of the guidance in one forward; cfg_scale must be above 1.
        step_cache: predicted relative change below which a step is not computed; 0 is off.
        camera_direction: one of core.workflows.camera; for models with a camera adapter, which
            must be given one. Takes the place of end_image.
        camera_speed: how far it goes from frame to frame.
        camera_origin: the first pose, 19 numbers.
        motion_bucket_id: 0 to 100; for models with a motion controller.
        tea_cache_l1_thresh: accumulated change below which a step is not computed. Not with
            cfg_merge.
        tea_cache_id: whose coefficients TeaCache takes.
    """

    cfg_merge: bool
    step_cache: float
    camera_direction: str
    camera_speed: float
    camera_origin: tuple[float, ...]
    motion_bucket_id: int
    tea_cache_l1_thresh: float
    tea_cache_id: str


def stock_arguments(pipe: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of WanVideoPipeline's call for what `WanVideo.denoise` was given.

    Raises:
        ModelMissing: the weights can't do what the catalog says of them.
    """
    arguments = {_NAMES.get(name, name): value for name, value in given.items()}
    arguments.pop("step_cache", None)
    if "camera_direction" in given:
        if pipe.dit.control_adapter is None:
            raise ModelMissing("these weights have no camera adapter: they are of another model")
        arguments["camera_control_direction"] = _DIRECTIONS[given["camera_direction"]]
    return arguments
