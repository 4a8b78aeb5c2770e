"""A workflow's Params as a form: what to draw, what counts now, what is wrong. Pure, no NiceGUI.

    form_of(workflow, ready)         -> Form      once a page: fields, choices, models
    view_of(workflow, values, ready) -> FormView  after a change: shown, blocked, defaults, problems

`values` holds only what the user has touched. All the rest are defaults, and those depend on the
model and the preset: others change what was not touched and leave the rest alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from core.catalog import AUTO, LORAS, ModelRef, Preset
from core.errors import InvalidParams, Problem
from core.workflows.base import Workflow
from core.workflows.params import HINTS, Tier, Widget, holds
from core.workflows.presets import FIELD as PRESET
from core.workflows.presets import preset_of, presets_for

ValueType = Literal["string", "integer", "number", "boolean", "pair", "list"]
FieldWidget = Literal[Widget, "choice"]

FEW_CHOICES: Final = 3
"""Up to this many choices stand side by side instead of in a list."""
FINE_SPAN: Final = 2
"""A fraction whose range is at most this wide moves by hundredths, a wider one by tenths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One value of a select."""

    value: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One member of the objects that a list holds: a text, or a number with its range."""

    name: str
    title: str
    type: Literal["string", "number"]
    default: Any
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One parameter, ready to be drawn. `minimum`, `maximum` and `step` are in `unit`.

    Of a list: `max_items`, `parts` where its items are objects, and `counted_by`, the parameter
    that says how many items are used (the last one again and again where there are fewer).
    """

    name: str
    title: str
    tier: Tier
    widget: FieldWidget
    type: ValueType
    default: Any
    choices: tuple[Choice, ...]
    minimum: float | None
    maximum: float | None
    max_length: int | None
    max_items: int | None
    step: float
    unit: str
    help: str
    when: Mapping[str, Any]
    needs: str
    freed_by: str
    counted_by: str
    parts: tuple[Part, ...]
    required: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A workflow's fields in the order of its Params. `headline` is the text that names a job."""

    workflow: str
    title: str
    summary: str
    headline: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldView:
    """What one field is at the moment. `blocked` says why it can't be used, "" when it can."""

    shown: bool
    default: Any
    blocked: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelView:
    """The model that would run. Not `ready`: its weights are not where jobs run."""

    id: str
    title: str
    demo: bool
    ready: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FormView:
    """The form's state for some touched values. `missing` are required fields without a value."""

    model: ModelView
    fields: Mapping[str, FieldView]
    problems: tuple[Problem, ...]
    missing: tuple[str, ...]

    def counting(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those values that count: shown and usable with the model."""
        return {
            name: value
            for name, value in values.items()
            if (view := self.fields.get(name)) and view.shown and not view.blocked
        }


def form_of(workflow: Workflow[Any], ready: Collection[str]) -> Form:
    """The workflow's form; models that are not `ready` say so in their choice."""
    schema = workflow.params.model_json_schema()
    required = frozenset(schema.get("required", ()))
    fields = tuple(
        _field(name, schema["properties"][name], name in required, workflow, ready)
        for name in workflow.params.names()
        if name != PRESET or presets_for(workflow.id)
    )
    texts = [field.name for field in fields if field.widget in {"textarea", "text", "texts"}]
    return Form(
        workflow=workflow.id,
        title=workflow.title,
        summary=workflow.summary,
        headline=texts[0] if texts else "",
        fields=fields,
    )


def view_of(workflow: Workflow[Any], values: Mapping[str, Any], ready: Collection[str]) -> FormView:
    """The state of the form once `values` were touched.

    Args:
        workflow: whose form it is.
        values: what the user has touched; None or "" counts as not touched.
        ready: ids of the models whose weights are where jobs run.
    """
    touched = {name: value for name, value in values.items() if value not in (None, "")}
    row = _row(workflow, touched, ready)
    form = form_of(workflow, ready)
    known = workflow.defaults(row, _preset(workflow, touched, row))
    defaults = {field.name: known.get(field.name, field.default) for field in form.fields}
    present = {**defaults, **touched}
    shown = _shown(form.fields, present, row)
    fields = {
        field.name: FieldView(
            shown=field.name in shown,
            default=defaults[field.name],
            blocked=_blocked(workflow, field, row),
        )
        for field in form.fields
    }
    view = FormView(
        model=ModelView(
            id=row.id, title=row.title, demo=row.demo, ready=row.demo or row.id in ready
        ),
        fields=fields,
        problems=(),
        missing=tuple(
            field.name
            for field in form.fields
            if field.required and touched.get(field.name, []) == []
        ),
    )
    return replace(view, problems=tuple(_problems(workflow, view, touched, ready)))


# --- one field -----------------------------------------------------------------------------------


def _field(
    name: str,
    schema: Mapping[str, Any],
    required: bool,
    workflow: Workflow[Any],
    ready: Collection[str],
) -> Field:
    hints = schema.get(HINTS, {})
    kind = _kind(schema)
    value_type = _type(kind)
    choices = _choices(kind, hints)
    if name == "model":
        choices = tuple(_model_choices(workflow, ready))
    if name == PRESET:
        choices = tuple(_preset_choices(workflow))
    if hints.get("widget") == "lora":
        choices = tuple(_lora_choices(workflow))
    minimum, maximum, step = _range(kind, hints, value_type)
    return Field(
        name=name,
        title=_title(name, schema.get("title", "")),
        tier=Tier(hints.get("tier", Tier.ADVANCED)),
        widget=_widget(hints.get("widget"), value_type, choices, minimum, maximum),
        type=value_type,
        default=schema.get("default"),
        choices=choices,
        minimum=minimum,
        maximum=maximum,
        max_length=kind.get("maxLength"),
        max_items=kind.get("maxItems"),
        step=step,
        unit=hints.get("unit", ""),
        help=schema.get("description", ""),
        when=hints.get("when", {}),
        needs=hints.get("needs", ""),
        freed_by=hints.get("freed_by", ""),
        counted_by=hints.get("counted_by", ""),
        parts=tuple(_parts(kind.get("items", {}))) if value_type == "list" else (),
        required=required,
    )


def _parts(item: Mapping[str, Any]) -> Iterator[Part]:
    for name, schema in item.get("properties", {}).items():
        kind = _kind(schema)
        value_type = _type(kind)
        if value_type not in ("string", "number"):
            raise ValueError(f"no widget for an inner value of type {value_type!r}")
        yield Part(
            name=name,
            title=_title(name, schema.get("title", "")),
            type=value_type,
            default=schema.get("default"),
            minimum=kind.get("minimum"),
            maximum=kind.get("maximum"),
        )


def _kind(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the value itself, where the parameter may also be left out (null)."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return options[0] if options else schema


def _type(kind: Mapping[str, Any]) -> ValueType:
    if kind.get("type") == "array":
        return "pair" if "prefixItems" in kind else "list"
    found = kind.get("type", "string")
    if found not in {"string", "integer", "number", "boolean"}:
        raise ValueError(f"no widget for a parameter of JSON type {found!r}")
    return cast("ValueType", found)


def _title(name: str, title: str) -> str:
    words = name.replace("_", " ")
    return words.capitalize() if title in {"", words.title()} else title


def _choices(kind: Mapping[str, Any], hints: Mapping[str, Any]) -> tuple[Choice, ...]:
    labels = hints.get("labels", {})
    return tuple(
        Choice(value=str(value), label=labels.get(value, str(value)))
        for value in kind.get("enum", ())
    )


def _model_choices(workflow: Workflow[Any], ready: Collection[str]) -> Iterator[Choice]:
    yield Choice(value=AUTO, label="Automatic")
    for row in workflow.models:
        here = row.demo or row.id in ready
        yield Choice(value=row.id, label=row.title if here else f"{row.title} (not here yet)")


def _preset_choices(workflow: Workflow[Any]) -> Iterator[Choice]:
    yield Choice(value="", label="None")
    for preset in presets_for(workflow.id):
        yield Choice(value=preset.id, label=preset.title)


def _lora_choices(workflow: Workflow[Any]) -> Iterator[Choice]:
    """Those of the catalog; a file's path is a value as well."""
    families = {row.family for row in workflow.models}
    for ref in LORAS:
        if ref.family in families:
            yield Choice(value=ref.id, label=ref.title)


def _range(
    kind: Mapping[str, Any], hints: Mapping[str, Any], value_type: ValueType
) -> tuple[float | None, float | None, float]:
    """Smallest and largest value, and how far a press of an arrow key goes."""
    if grid := hints.get("grid"):
        low, high, step = grid["low"], grid["high"], grid["step"]
        first = low + (grid["offset"] - low) % step
        return first, high - (high - grid["offset"]) % step, step
    low, high = kind.get("minimum"), kind.get("maximum")
    above = kind.get("exclusiveMinimum")
    if value_type == "integer":
        return (low if above is None else above + 1), high, 1
    bottom = low if above is None else above
    fine = bottom is not None and high is not None and high - bottom <= FINE_SPAN
    step = 0.01 if fine else 0.1
    return (low if above is None else above + step), high, step


def _widget(
    hinted: Widget | None,
    value_type: ValueType,
    choices: tuple[Choice, ...],
    minimum: float | None,
    maximum: float | None,
) -> FieldWidget:
    if choices:
        return hinted or ("choice" if len(choices) <= FEW_CHOICES else "select")
    if hinted:
        return hinted
    if value_type in {"integer", "number"}:
        return "slider" if minimum is not None and maximum is not None else "number"
    by_type: dict[ValueType, FieldWidget] = {"boolean": "switch", "pair": "pair", "list": "texts"}
    return by_type.get(value_type, "text")


# --- the form's state ----------------------------------------------------------------------------


def _row(workflow: Workflow[Any], touched: Mapping[str, Any], ready: Collection[str]) -> ModelRef:
    try:
        return workflow.row(touched, ready)
    except InvalidParams:  # a draft from a time when this model existed: told as a problem
        return workflow.choose(AUTO, ready)


def _preset(workflow: Workflow[Any], touched: Mapping[str, Any], row: ModelRef) -> Preset | None:
    try:
        return preset_of(workflow.id, touched.get(PRESET), row)
    except InvalidParams:  # for another model: told as a problem
        return None


def _shown(fields: tuple[Field, ...], present: Mapping[str, Any], row: ModelRef) -> frozenset[str]:
    """Names of the fields whose conditions hold, through chains of conditions."""
    by_name = {field.name: field for field in fields}

    def counts(field: Field) -> bool:
        return field.freed_by in row.capabilities or all(
            holds(present.get(other), wanted) and counts(by_name[other])
            for other, wanted in field.when.items()
        )

    return frozenset(field.name for field in fields if counts(field))


def _blocked(workflow: Workflow[Any], field: Field, row: ModelRef) -> str:
    if not field.needs or field.needs in row.capabilities:
        return ""
    able = [model.title for model in workflow.models if field.needs in model.capabilities]
    return f"Not with {row.title}. Models that can: {', '.join(able) or 'none'}."


def _problems(
    workflow: Workflow[Any], view: FormView, touched: Mapping[str, Any], ready: Collection[str]
) -> Iterator[Problem]:
    try:
        workflow.parse(view.counting(touched), ready=ready)
    except InvalidParams as error:
        yield from (problem for problem in error.problems if problem.field not in view.missing)
