"""LoRA as a parameter: which files, on which expert, how strong.

An item is an object, or a text for command lines and quick use:

    {"high": "a.safetensors", "low": "b.safetensors", "high_strength": 0.8}
    "high=a.safetensors,low=b.safetensors,high_strength=0.8"
    "wan2.2-lightning", "wan2.2-lightning:0.8"      a pair of the catalog: both of its files
    "a.safetensors", "a.safetensors:0.8"            for models with one transformer

A name is the id of a LoRA in the catalog, or a path below `<models>/lora`. A pair of the catalog
has one id: as `high` it names its file for the high noise expert, as `low` the other one.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from core import catalog
from core.lora import STRENGTH_MAX, Expert, LoraPart, check_name

MOST: Final = 16
"""So many LoRAs at most stand on a model at once."""

Strength = Annotated[float, Field(ge=-STRENGTH_MAX, le=STRENGTH_MAX)]


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WanLora(_Item):
    """A LoRA for the experts of a Wan model. A model with one expert takes it as `high`."""

    high: str | None = None
    low: str | None = None
    high_strength: Strength = 1.0
    low_strength: Strength = 1.0

    @field_validator("high", "low")
    @classmethod
    def _is_a_name(cls, value: str | None, info: ValidationInfo) -> str | None:
        expert: Expert = "high" if info.field_name == "high" else "low"
        return value and check_name(value, "wan_video", expert)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> WanLora:
        if not (self.high or self.low):
            raise ValueError("a LoRA needs a file: give `high`, `low` or both")
        return self

    def parts(self, place: str) -> tuple[LoraPart, ...]:
        """Its files, one an expert; `place` is how messages call the item."""
        both: tuple[tuple[Expert, str | None, float], ...] = (
            ("high", self.high, self.high_strength),
            ("low", self.low, self.low_strength),
        )
        return tuple(
            LoraPart(place=f"{place}.{expert}", expert=expert, name=name, strength=strength)
            for expert, name, strength in both
            if name
        )


class QwenLora(_Item):
    """A LoRA for a model with one transformer."""

    file: str
    strength: Strength = 1.0

    @field_validator("file")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return check_name(value, "qwen_image", "transformer")

    def parts(self, place: str) -> tuple[LoraPart, ...]:
        """Its file; `place` is how messages call the item."""
        part = LoraPart(place=place, expert="transformer", name=self.file, strength=self.strength)
        return (part,)


def _wan_item(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if "=" in value:
        return _assignments(value)
    name, strength = _name_and_strength(value)
    ref = catalog.find_lora(name)
    if ref is None:
        raise ValueError(
            f"{value!r} does not say for which expert: use high={name} or low={name}, or both "
            "with a comma between"
        )
    sides = [side for side in ("high", "low") if getattr(ref, side)]
    found: dict[str, Any] = dict.fromkeys(sides or ("high",), name)
    if strength:
        found |= {f"{side}_strength": strength for side in sides}
    return found


def _qwen_item(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith(("file=", "strength=")):
        return _assignments(value)
    name, strength = _name_and_strength(value)
    return {"file": name, "strength": strength} if strength else {"file": name}


def _assignments(text: str) -> dict[str, str]:
    """`high=a,low=b` as an object; what is right is left to the fields."""
    found: dict[str, str] = {}
    for word in text.split(","):
        name, equals, value = (piece.strip() for piece in word.partition("="))
        if not equals or not name:
            raise ValueError(f"{word!r} in {text!r} is not a pair name=value")
        if name in found:
            raise ValueError(f"{name} stands twice in {text!r}")
        found[name] = value
    return found


def _name_and_strength(text: str) -> tuple[str, str]:
    """The two sides of the last colon, if a number stands behind it."""
    name, _, strength = text.rpartition(":")
    try:
        float(strength)
    except ValueError:
        return text, ""
    return (name, strength) if name else (text, "")


WanLoras = Annotated[
    tuple[Annotated[WanLora, BeforeValidator(_wan_item)], ...], Field(max_length=MOST)
]
QwenLoras = Annotated[
    tuple[Annotated[QwenLora, BeforeValidator(_qwen_item)], ...], Field(max_length=MOST)
]
