"""What a parameter tells about itself, so that forms, CLI, OpenAPI and checks need no second list.

    steps: int = param(50, tier=ADVANCED, unit="steps", help="More is finer and slower.", ge=1)

The hints travel in the JSON schema under `x-diffbox` and are read from there by every edge.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from core.catalog import MODELS, ModelRef
from core.errors import InvalidParams, Problem
from core.lora import LoraPart
from core.workflows.schema import inlined

HINTS: Final = "x-diffbox"
SEED_MAX: Final = 2**53 - 1
"""Largest seed: what JavaScript and JSON readers keep exact."""


class Tier(StrEnum):
    """How deep in the form a parameter stands."""

    BASIC = "basic"
    ADVANCED = "advanced"
    EXPERT = "expert"


Widget = Literal[
    "text",
    "textarea",
    "number",
    "slider",
    "select",
    "switch",
    "image",
    "video",
    "seed",
    "size",
    "pair",
    "texts",
    "images",
    "mask",
    "lora",
    "clip",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Whole numbers `offset + step·n` in [low, high]."""

    step: int
    offset: int
    low: int
    high: int

    def check(self, name: str, value: int) -> int:
        """The value itself.

        Raises:
            ValueError: not on the grid; names the nearest values that are.
        """
        if self.low <= value <= self.high and value % self.step == self.offset:
            return value
        inside = min(max(value, self.low), self.high)
        below = inside - (inside - self.offset) % self.step
        above = min(below + self.step, self.high) if inside != below else below
        words = " or ".join(str(n) for n in sorted({max(below, self.low), above}))
        rule = f"{self.step}n + {self.offset}" if self.offset else f"a multiple of {self.step}"
        raise ValueError(
            f"{name}={value} must be {rule} from {self.low} to {self.high}; nearest: {words}"
        )


def param(
    default: Any = ...,
    *,
    tier: Tier,
    help: str,
    title: str | None = None,
    unit: str = "",
    widget: Widget | None = None,
    labels: Mapping[str, str] | None = None,
    when: Mapping[str, Any] | None = None,
    derived: bool = False,
    needs: str | None = None,
    freed_by: str | None = None,
    counted_by: str | None = None,
    grid: Grid | None = None,
    **constraints: Any,
) -> Any:
    """A pydantic Field with hints.

    Args:
        default: value when left out; `...` makes the parameter required.
        tier: where the form shows it.
        help: one sentence for the user.
        title: the form's label; the name in words when left out.
        unit: "frames", "px", "steps", …
        widget: how the form draws it; by type when left out.
        labels: what a `Literal`'s values are called.
        when: other parameters and the value they must have for this one to count;
            the value `True` means "is given": a file, a switch that is on, a choice other
            than "none"; a list means any of its values.
        derived: where `when` does not hold, the value follows from those other parameters
            and is shown, but can't be chosen.
        needs: a capability of the model without which this one can't be used.
        freed_by: a capability of the model with which `when` does not apply.
        counted_by: of a list, the parameter that says how many items are used; where there are
            fewer, the last one goes on.
        grid: the values that the form steps through; a validator has to check them.
        constraints: pydantic's own (`ge`, `le`, `max_length`, …).
    """
    hints: dict[str, Any] = {"tier": tier.value}
    words = {"unit": unit, "widget": widget, "needs": needs}
    words |= {"freed_by": freed_by, "counted_by": counted_by}
    for key, value in words.items():
        if value:
            hints[key] = value
    if labels:
        hints["labels"] = dict(labels)
    if when:
        hints["when"] = dict(when)
    if derived:
        hints["derived"] = True
    if grid:
        hints["grid"] = asdict(grid)
    extra: dict[str, Any] = {HINTS: hints}
    return Field(default, title=title, description=help, json_schema_extra=extra, **constraints)


def hints_of(field: FieldInfo) -> Mapping[str, Any]:
    """The hints that `param` put on a field; empty for a plain one."""
    extra = field.json_schema_extra
    hints = extra.get(HINTS) if isinstance(extra, dict) else None
    return hints if isinstance(hints, dict) else {}


_REFERENCE = re.compile(
    r"upload:[0-9a-f]{64}|https://\S{1,2000}|data:[a-z]+/[-+.a-z0-9]+;base64,\S+"
)
DATA_URI_MAX: Final = 10_000_000
FILE_KINDS: Final[Mapping[str, Literal["image", "video"]]] = MappingProxyType(
    {"image": "image", "images": "image", "mask": "image", "video": "video"}
)
"""Widgets of file parameters, and the kind of file that each takes."""


def _check_reference(value: str) -> str:
    if len(value) > DATA_URI_MAX or not _REFERENCE.fullmatch(value) or not _has_host(value):
        shown = value if len(value) <= 80 else value[:77] + "..."
        raise ValueError(
            f"{shown!r} is not a file reference: use upload:<sha256> (from POST /api/uploads), "
            f"an https:// address, or a base64 data: URI of at most {DATA_URI_MAX // 1_000_000} MB"
        )
    return value


def _has_host(value: str) -> bool:
    """Whether an https address can be taken apart at all; other references pass."""
    if not value.startswith("https:"):
        return True
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


FileRef = Annotated[str, AfterValidator(_check_reference)]
"""An input file by reference: `upload:<sha256>`, `https://…` or `data:…;base64,…`."""


_CLIP: Final = re.compile(r"clip:([0-9a-f-]{36})/(\d{1,6})")


def _check_clip(value: str) -> str:
    if not _CLIP.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is not a clip: use clip:<job id>/<index from 0>")
    return value


ClipRef = Annotated[str, AfterValidator(_check_clip)]
"""A clip of an earlier job, `clip:<job id>/<index>`; the new job goes on after it."""


def clip_of(ref: str) -> tuple[str, int]:
    """(job id, index) of a ClipRef."""
    found = _CLIP.fullmatch(ref)
    assert found, ref
    return found[1], int(found[2])


class Params(BaseModel):
    """A workflow's validated inputs. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    leading: ClassVar[tuple[str, ...]] = ()
    """Parameters that stand before all others in forms and help."""

    model: str
    seed: int | None
    preset: str = param(
        "",
        tier=Tier.BASIC,
        help="Settings that belong together. What you set yourself stays.",
        widget="select",
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All parameters in the order in which people see them.

        Pydantic's own order puts a base's fields first even where they are declared anew, which
        would put the seed above the prompt.
        """
        bases = [base for base in reversed(cls.__mro__) if issubclass(base, Params)]
        declared = [name for base in bases if base is not Params for name in base.__annotations__]
        order = dict.fromkeys([*cls.leading, "preset", *declared, *cls.model_fields])
        return tuple(name for name in order if name in cls.model_fields)

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Pydantic's, with the schemas of inner objects where they are used."""
        return inlined(super().model_json_schema(*args, **options))

    @classmethod
    def layered(cls, defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """What was sent, laid over a model's defaults."""
        return {**defaults, **raw}

    def settled(self) -> Self:
        """The same params with a seed chosen, so that a second attempt makes the same picture."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": secrets.randbelow(2**32)})

    def lora_parts(self) -> tuple[LoraPart, ...]:
        """All LoRA files that are wanted, with the place of each for messages."""
        return tuple(
            part
            for name, field in type(self).model_fields.items()
            if hints_of(field).get("widget") == "lora"
            for index, item in enumerate(getattr(self, name))
            for part in item.parts(f"{name}[{index}]")
        )

    def file_refs(self) -> dict[str, tuple[str, ...]]:
        """The file parameters that are given, by name; a single file is a tuple of one."""
        found = {}
        for name, field in type(self).model_fields.items():
            if hints_of(field).get("widget") in FILE_KINDS and (value := getattr(self, name)):
                found[name] = (value,) if isinstance(value, str) else tuple(value)
        return found

    def with_files(self, refs: Mapping[str, tuple[str, ...]]) -> Self:
        """The same params with other references, given as `file_refs` gives them."""
        update = {
            name: found[0] if isinstance(getattr(self, name), str) else found
            for name, found in refs.items()
        }
        return self.model_copy(update=update)


P = TypeVar("P", bound=Params)


def validate(cls: type[P], values: Mapping[str, Any], row: ModelRef) -> P:
    """Params from what a person or a program sent, checked against each other and the model.

    Args:
        cls: the workflow's.
        values: by name; those left out have their defaults.
        row: the model that they are for.

    Raises:
        InvalidParams: with one Problem a rejected value.
    """
    try:
        params = cls.model_validate(dict(values))
    except ValidationError as error:
        raise _invalid(tuple(_problem(cls, e) for e in error.errors())) from None
    problems = tuple(_dependency_problems(params, row))
    if problems:
        raise _invalid(problems)
    return params


def _invalid(problems: tuple[Problem, ...]) -> InvalidParams:
    return InvalidParams("; ".join(p.message for p in problems), problems=problems)


def _problem(cls: type[Params], error: Any) -> Problem:
    field, place = _place(error["loc"])
    inside = place != field
    if error["type"] == "extra_forbidden":
        close = [] if inside else get_close_matches(field, cls.model_fields, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        named = place if inside else _short(field)
        return Problem(field=field, message=f"{named} is not a parameter{hint}")
    if error["type"] == "missing":
        return Problem(field=field, message=f"{place} is required")
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return Problem(field=field, message=text if place in text else f"{place}: {text}")
    rule = "" if inside else _rule(cls.model_fields.get(field), error["type"], text)
    if rule:
        return Problem(field=field, message=f"{field}={_short(error['input'])} must {rule}")
    text = text[0].lower() + text[1:]
    return Problem(field=field, message=f"{place}={_short(error['input'])}: {text}")


def _place(loc: tuple[int | str, ...]) -> tuple[str, str]:
    """The parameter's name, and where in it something is wrong: "lora", "lora[0].high"."""
    field, *inner = loc or ("",)
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:40]}" for step in inner)
    return str(field), "".join([str(field), *steps])


_WHOLE: Final = frozenset({"int_parsing", "int_parsing_size", "int_from_float", "int_type"})
_BOUNDS: Final = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", *_WHOLE}
)
_SPAN: Final = (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))


def _rule(field: FieldInfo | None, error: str, text: str) -> str:
    """What a number or text must be, with both bounds; "" when pydantic says it better."""
    if field is None:
        return ""
    if error in {"string_too_long", "string_too_short", "too_long", "too_short"}:
        return text.partition("should ")[2]
    if error not in _BOUNDS:
        return ""
    limits = [(getattr(m, name, None), word) for name, word in _SPAN for m in field.metadata]
    span = [f"{word} {limit}" for limit, word in limits if limit is not None]
    return " ".join(["be", *(["a whole number"] if error in _WHOLE else []), *span])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _dependency_problems(params: Params, row: ModelRef) -> Iterator[Problem]:
    for name, field in type(params).model_fields.items():
        usual = field.get_default(call_default_factory=True)
        if getattr(params, name) in (usual, row.defaults.get(name, usual)):
            continue
        hints = hints_of(field)
        if (needs := hints.get("needs")) and needs not in row.capabilities:
            able = ", ".join(m.id for m in MODELS if needs in m.capabilities) or "none"
            message = f"{name} can't be used with model {params.model!r}; models that can: {able}"
            yield Problem(field=name, message=message)
            continue
        if hints.get("derived") or hints.get("freed_by") in row.capabilities:
            continue
        for other, wanted in hints.get("when", {}).items():
            if not holds(getattr(params, other), wanted):
                yield Problem(field=name, message=f"{name} counts only {_words(other, wanted)}")


def holds(value: object, wanted: object) -> bool:
    """Whether a parameter's value is what another one's `when` wants of it."""
    if wanted is True:
        return bool(value) and value != "none"
    return value in wanted if isinstance(wanted, list) else value == wanted


def _words(other: str, wanted: object) -> str:
    if wanted is True:
        return f"with {other}"
    values = wanted if isinstance(wanted, list) else [wanted]
    return f"when {other} is {' or '.join(repr(value) for value in values)}"
