"""A log line is one JSON object that machines can read."""

from __future__ import annotations

import json
import logging

import pytest

from core.logs import JsonLines


def line(message: str, *, exc_info: BaseException | None = None, **extra: object) -> str:
    log = logging.getLogger("test")
    error = (type(exc_info), exc_info, exc_info.__traceback__) if exc_info else None
    record = log.makeRecord("test", logging.INFO, __file__, 1, message, (), error, extra=extra)
    return JsonLines().format(record)


def test_a_record_is_one_line_with_its_extra_fields() -> None:
    text = line("job\ntaken", job="j1", attempt=2)
    assert "\n" not in text
    told = json.loads(text)
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "info", "logger": "test", "event": "job\ntaken", "job": "j1", "attempt": 2,
    }  # fmt: skip


def test_an_error_brings_its_traceback() -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        raise ValueError("wrong")
    told = json.loads(line("failed", exc_info=caught.value))
    assert "ValueError: wrong" in told["traceback"]
