"""Presets: settings that belong together, between a model's defaults and what was sent.

    model's defaults < preset < what was sent

A job keeps the preset's id beside the settled values, as a note: it is not laid over them again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from core.catalog import PRESETS, ModelRef, Preset
from core.errors import InvalidParams, Problem
from core.workflows.params import Params

FIELD: Final = "preset"
_SIDES: Final = {"high": "high", "low": "low", "file": "transformer"}
"""Where a LoRA stands in the parameter, and on which expert it goes."""


def presets_for(workflow_id: str) -> tuple[Preset, ...]:
    """A workflow's presets, in the catalog's order."""
    return tuple(preset for preset in PRESETS if preset.workflow == workflow_id)


def preset_of(workflow_id: str, name: object, row: ModelRef) -> Preset | None:
    """The preset with this id; None for "" or None.

    Raises:
        InvalidParams: the workflow has no such preset, or it is for other models.
    """
    if name in (None, ""):
        return None
    known = presets_for(workflow_id)
    usable = [preset for preset in known if row.id in preset.models]
    if found := [preset for preset in usable if preset.id == name]:
        return found[0]
    message = f"preset {str(name)[:80]!r} "
    if made_for := [preset for preset in known if preset.id == name]:
        message += f"is for {' or '.join(made_for[0].models)}, not for {row.id}; "
        message += f"presets that are: {', '.join(p.id for p in usable) or 'none'}"
    else:
        message += f"is not one of {', '.join(p.id for p in known) or 'any: there are none'}"
    raise InvalidParams(message, problems=(Problem(field=FIELD, message=message),))


def preferred(
    workflow_id: str, name: object, rows: Collection[ModelRef], ready: Collection[str]
) -> ModelRef | None:
    """The first model that is here among those of a preset; None where there is none."""
    named = [preset for preset in presets_for(workflow_id) if preset.id == name]
    models = {model for preset in named for model in preset.models}
    here = (row for row in rows if row.id in models and (row.demo or row.id in ready))
    return next(here, None)


def check_loras(preset: Preset | None, params: Params) -> None:
    """Refuse LoRAs of one's own that leave out what the preset's steps are made for.

    Raises:
        InvalidParams: names what has to be added.
    """
    if preset is None:
        return
    present = {(part.expert, part.name) for part in params.lora_parts()}
    for item in preset.params.get("lora", ()):
        for side, expert in _SIDES.items():
            if side in item and (expert, item[side]) not in present:
                message = (
                    f"lora: preset {preset.id!r} is made with {item[side]!r} as {side}: add it, "
                    "with a strength of 0 if it shall have no effect, or leave the preset out"
                )
                raise InvalidParams(message, problems=(Problem(field="lora", message=message),))
