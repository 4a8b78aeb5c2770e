"""JSON schemas that can be put anywhere: inner objects stand where they are used.

Pydantic's own `$ref`s count from the root of the document, and the schemas of Params become parts
of larger ones (OpenAPI).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema without `$defs`; none of ours contains itself."""
    inner = schema.get("$defs", {})
    outer = {name: part for name, part in schema.items() if name != "$defs"}
    return cast("dict[str, Any]", _resolved(outer, inner))


def _resolved(part: Any, inner: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolved(item, inner) for item in part]
    if not isinstance(part, dict):
        return part
    if ref := part.get("$ref"):
        return _resolved(inner[ref.removeprefix("#/$defs/")], inner)
    return {name: _resolved(value, inner) for name, value in part.items()}
