"""What our files tell about themselves: job, params, seed, models with hashes, versions.

Stored as JSON in the mp4's comment tag, which survives a copy and a remux.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import imageio_ffmpeg

from core.protocol import Job

_READ_TIMEOUT_S: Final = 30


def embedded(job: Job, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of one output. Holds no secret: addresses lose their query."""
    return {
        "diffbox": version("diffbox"),
        "job": job.id,
        "workflow": job.workflow,
        "created_at": job.created_at.isoformat(),
        "seed": job.params.get("seed"),
        "params": {name: _public(value) for name, value in job.params.items()},
        **provenance,
    }


def read_embedded(path: Path) -> dict[str, Any] | None:
    """The metadata of one of our files, None if it has none."""
    argv = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "ffmetadata",
        "-",
    ]
    done = subprocess.run(argv, check=False, capture_output=True, timeout=_READ_TIMEOUT_S)
    comment = _comment(done.stdout.decode("utf-8", errors="replace"))
    try:
        found = json.loads(comment)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "diffbox" in found else None


def _comment(text: str) -> str:
    """The comment's value out of an ffmetadata text, where a backslash escapes one character."""
    _, found, rest = text.partition("\ncomment=")
    value = ""
    escaped = False
    for char in rest if found else "":
        if escaped or char not in "\\\n":
            value += char
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            break
    return value


def _public(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("data:"):
        return f"data:sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, str) and value.startswith("https://"):
        return urlunsplit(urlsplit(value)._replace(query="", fragment=""))
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return value
