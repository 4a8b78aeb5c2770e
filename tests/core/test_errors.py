"""The error tree and its table in the docstring agree."""

from __future__ import annotations

import re

import core.errors
from core.errors import DiffboxError


def test_the_docstring_lists_every_error_as_it_is() -> None:
    row = re.compile(r"── (\w+) +(\w+) +(yes|no) +(\d+|–) ")
    listed = {m[1]: (m[2], m[3] == "yes", m[4]) for m in row.finditer(core.errors.__doc__ or "")}
    classes = [cls for cls in DiffboxError.__subclasses__() if cls.__module__ == "core.errors"]
    real = {cls.__name__: (cls.code, cls.retryable, str(cls.http_status or "–")) for cls in classes}
    assert listed == real
