"""From the start of the control plane to its first page, against bare NiceGUI.

python -m benchmarks.bench_page [ROUNDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stack import free_port
from benchmarks.table import percentile, print_json, print_table

GOAL_S = 2.0
BARE = """
import sys
from fastapi import FastAPI
from nicegui import ui
app = FastAPI()
@ui.page('/')
def index(): ui.label('x')
ui.run_with(app, tailwind=False)
import uvicorn
uvicorn.run(app, host='127.0.0.1', port=int(sys.argv[1]), log_level='warning')
"""


def first_page_s(argv: list[str], port: int, folder: str) -> tuple[float, float]:
    """Seconds until GET / is answered with a page, and the process's memory then in MB."""
    env = {
        **os.environ,
        "DIFFBOX_PORT": str(port),
        "DIFFBOX_BACKEND": "memory",
        **{f"DIFFBOX_{name}_DIR": f"{folder}/{name}" for name in ("DATA", "MODELS", "OUTPUTS")},
    }
    began = time.perf_counter()
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                page = httpx.get(f"http://127.0.0.1:{port}/", timeout=10)
                assert "text/html" in page.headers["content-type"]
                return time.perf_counter() - began, resident_mb(process.pid)
            except httpx.TransportError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.01)
    finally:
        process.terminate()
        process.wait(20)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(rounds: int = 5) -> dict[str, Any]:
    """Run both in turns, print, and return the result."""
    found: dict[str, list[tuple[float, float]]] = {"bare NiceGUI": [], "diffbox": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as folder:
            for name, command in (
                ("bare NiceGUI", ["-c", BARE]),
                ("diffbox", ["-m", "controlplane.main"]),
            ):
                port = free_port()
                argv = [sys.executable, *command, str(port)]
                found[name].append(first_page_s(argv, port, folder))
    rows = [
        {
            "what": name,
            "first page s (p50)": f"{percentile([s for s, _ in values], 0.5):.2f}",
            "RSS MB (p50)": f"{percentile([mb for _, mb in values], 0.5):.0f}",
        }
        for name, values in found.items()
    ]
    print_table(f"Start to first page, {rounds} rounds (goal {GOAL_S:g} s)", rows)
    ours, bare = found["diffbox"], found["bare NiceGUI"]
    result = {
        "first_page_s": round(percentile([s for s, _ in ours], 0.5), 2),
        "bare_s": round(percentile([s for s, _ in bare], 0.5), 2),
        "rss_mb": round(percentile([mb for _, mb in ours], 0.5)),
    }
    print_json("page", result)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
