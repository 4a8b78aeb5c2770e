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


def marked(mark: dict[str, str], folder: Path | None = None) -> dict[int, str]:
    """The living processes that inherited the mark: pid -> command line.

    Valkey writes its title over its environment, so what works inside `folder` counts as well.
    """
    wanted = f"{MARK}={mark[MARK]}".encode()
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = wanted in (proc / "environ").read_bytes().split(b"\0")
            is_inside = folder is not None and (proc / "cwd").readlink().is_relative_to(folder)
            if (is_ours or is_inside) and alive(int(proc.name)):
                found[int(proc.name)] = (proc / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it ended while we looked
            continue
    return found


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
