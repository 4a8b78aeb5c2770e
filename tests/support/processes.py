"""Which processes live: by id, or by a mark that all descendants inherit in their environment."""

from __future__ import annotations

import uuid
from pathlib import Path

MARK = "DIFFBOX_TEST_MARK"


def new_mark() -> dict[str, str]:
    """Environment for a process whose descendants shall be found again."""
    return {MARK: uuid.uuid4().hex}


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return _state(pid) not in {"Z", "X", ""}


def marked(mark: dict[str, str]) -> dict[int, str]:
    """The living processes that inherited the mark: pid -> command line."""
    wanted = f"{MARK}={mark[MARK]}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0") and alive(int(folder.name)):
                found[int(folder.name)] = (
                    (folder / "cmdline").read_text().replace("\0", " ").strip()
                )
        except OSError:  # it ended while we looked
            continue
    return found


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
