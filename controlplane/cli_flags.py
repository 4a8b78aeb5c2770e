"""A workflow's Params as command line flags.

A parameter is its name with dashes, a list repeats the flag, a file parameter takes a path or an
https address. What is right is left to Params: a flag is only brought into the parameter's type.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from controlplane.forms import Field, form_of
from core.errors import InputRejected, Problem
from core.workflows.base import Workflow
from core.workflows.params import FILE_KINDS, Tier

_DEST: Final = "param_"
_METAVARS: Final = {"integer": "N", "number": "X", "pair": "N", "string": "TEXT", "list": "TEXT"}
_LORA: Final = (
    "Each is an id, or a file below the lora folder; on models with two experts "
    "high=FILE,low=FILE,high_strength=X,low_strength=X, on others FILE:STRENGTH. Known ids: "
)
_TITLES: Final = {
    Tier.BASIC: "parameters",
    Tier.ADVANCED: "advanced parameters",
    Tier.EXPERT: "expert parameters",
}


def add_params(parser: argparse.ArgumentParser, workflow: Workflow[Any]) -> None:
    """One flag a parameter, grouped by tier."""
    fields = form_of(workflow, ()).fields
    lists = _lists(workflow)
    for tier, title in _TITLES.items():
        group = parser.add_argument_group(title)
        for field in fields:
            if field.tier is tier:
                _add(group, field, workflow, repeats=field.name in lists)


def given(
    args: argparse.Namespace, workflow: Workflow[Any], upload: Callable[[str, Path], str]
) -> dict[str, Any]:
    """The parameters that were given, as they are sent.

    Args:
        args: parsed with `add_params`' flags.
        workflow: whose parameters they are.
        upload: takes a parameter's name and a local file, gives the reference to it.

    Raises:
        InputRejected: a file is not there.
    """
    values: dict[str, Any] = {}
    for field in form_of(workflow, ()).fields:
        raw = getattr(args, _DEST + field.name)
        if raw is not None:
            values[field.name] = _value(field, raw, upload, repeated=field.name in _lists(workflow))
    return values


def _add(
    group: argparse._ArgumentGroup, field: Field, workflow: Workflow[Any], *, repeats: bool
) -> None:
    flag = "--" + field.name.replace("_", "-")
    options: dict[str, Any] = {"dest": _DEST + field.name, "help": _help(field, workflow)}
    if field.type == "boolean":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        return
    options["metavar"] = _METAVARS[field.type]
    if field.widget == "lora":
        options["metavar"] = "LORA"
    elif field.choices:
        values = [choice.value for choice in field.choices if choice.value]
        options["metavar"] = "{" + ",".join(values) + "}"
    elif field.widget in FILE_KINDS:
        options["metavar"] = "FILE"
    if repeats:
        group.add_argument(flag, action="append", **options)
    elif field.type == "pair":
        group.add_argument(flag, nargs="+", **options)
    else:
        group.add_argument(flag, **options)


def _help(field: Field, workflow: Workflow[Any]) -> str:
    words = [field.help]
    if field.widget == "lora":
        words.append(_LORA + ", ".join(choice.value for choice in field.choices) + ".")
    if field.required:
        words.append("Required.")
    facts = [fact for fact in (_span(field), _default(field, workflow)) if fact]
    if facts:
        words.append(f"({'; '.join(facts)})")
    if field.needs:
        able = [row.id for row in workflow.models if field.needs in row.capabilities]
        if len(able) < len(workflow.models):
            words.append(f"Only with model {' or '.join(able) or 'none of those known'}.")
    for other, wanted in field.when.items():
        flag = "--" + other.replace("_", "-")
        values = wanted if isinstance(wanted, list) else [wanted]
        only = f"Only with {flag}{'' if wanted is True else ' ' + ' or '.join(map(str, values))}"
        free = [row.id for row in workflow.models if field.freed_by in row.capabilities]
        words.append(f"{only}{''.join(f' or model {id}' for id in free)}.")
    return " ".join(words).replace("%", "%%")


def _span(field: Field) -> str:
    unit = f" {field.unit}" if field.unit else ""
    low, high = field.minimum, field.maximum
    if field.type == "boolean" or (low is None and high is None) or field.widget == "seed":
        return unit.strip()
    bounds = [
        f"from {low:g}" if low is not None else "",
        f"to {high:g}" if high is not None else "",
    ]
    return " ".join(filter(None, bounds)) + unit


def _default(field: Field, workflow: Workflow[Any]) -> str:
    others = [
        f"{_shown(row.defaults[field.name])} with {row.id}"
        for row in workflow.models
        if row.defaults.get(field.name, field.default) != field.default
    ]
    if field.required or field.default in (None, "", []):
        return ", ".join(others)
    return ", ".join([f"default {_shown(field.default)}", *others])


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _lists(workflow: Workflow[Any]) -> frozenset[str]:
    """Parameters with any number of values, unlike a pair."""
    properties = workflow.params.model_json_schema()["properties"]
    return frozenset(
        name
        for name, p in properties.items()
        if p.get("type") == "array" and "prefixItems" not in p
    )


def _value(
    field: Field, raw: Any, upload: Callable[[str, Path], str], *, repeated: bool = False
) -> Any:
    if repeated:
        return [_value(field, item, upload) for item in raw]
    if field.type == "pair" and isinstance(raw, list):
        return [_number(int, item) for text in raw for item in text.split(",") if item]
    if field.widget in FILE_KINDS:
        return _reference(field.name, raw, upload)
    if field.type in {"integer", "number"}:
        return _number(int if field.type == "integer" else float, raw)
    return raw


def _number(kind: type[int] | type[float], text: str) -> Any:
    """The number, or the text itself, which Params then refuses in its own words."""
    try:
        return kind(text)
    except ValueError:
        return text


def _reference(name: str, raw: str, upload: Callable[[str, Path], str]) -> str:
    if "://" in raw or raw.startswith(("upload:", "data:")):
        return raw
    path = Path(raw).expanduser()
    if not path.is_file():
        message = f"{raw!r} is not a file"
        raise InputRejected(message, problems=(Problem(field=name, message=message),))
    return upload(name, path)
