"""What every benchmark prints: a table for people, one JSON line for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of all values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Columns in the order of the first row's keys."""
    columns = list(rows[0])
    cells = [columns, *[[str(row.get(column, "")) for column in columns] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for i, row in enumerate(cells):
        print(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + " |"
        )
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def print_json(name: str, result: Mapping[str, Any]) -> None:
    """The last line."""
    print(json.dumps({"benchmark": name, **result}))
