"""What our files tell about themselves: job, params, seed, models with hashes, versions.

Stored as JSON in the mp4's comment tag, which survives a copy and a remux, and in a text chunk of
a PNG.
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

from core.media.png import SIGNATURE, read_text
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
    with path.open("rb") as file:
        is_png = file.read(len(SIGNATURE)) == SIGNATURE
    try:
        found = json.loads(read_text(path) if is_png else _comment(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "diffbox" in found else None


def _comment(path: Path) -> str:
    """The comment's value out of an ffmetadata text, where a backslash escapes one character."""
    source = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    argv = [*source, "-f", "ffmetadata", "-"]
    done = subprocess.run(argv, check=False, capture_output=True, timeout=_READ_TIMEOUT_S)
    text = done.stdout.decode("utf-8", errors="replace")
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
    if isinstance(value, (list, tuple)):
        return [_public(each) for each in value]
    if isinstance(value, str) and value.startswith("data:"):
        return f"data:sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, str) and value.startswith("https://"):
        return urlunsplit(urlsplit(value)._replace(query="", fragment=""))
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return value
