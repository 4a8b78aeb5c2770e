"""From `python -m handler.pod` to ready, against `import torch` alone, in turns.

    python -m benchmarks.bench_start [rounds]

Ready means: the queue answers, the engine's child has imported torch and the Wan pipeline, and
jobs are taken. A Valkey runs already, as on a pod.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.table import print_json, print_table
from controlplane.valkey_server import running_valkey

GOAL: Final = 2.0
TIMEOUT_S: Final = 120


def import_torch_s() -> float:
    """Seconds until a new Python has imported torch; its exit is not counted."""
    began = time.perf_counter()
    code = "import torch; print('imported', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"imported\n"
        return time.perf_counter() - began


def worker_ready_s(url: str, folder: Path) -> float:
    """Seconds from the spawn of a worker to its line "ready"."""
    env = {
        **os.environ,
        "DIFFBOX_VALKEY_URL": url,
        **{f"DIFFBOX_{name}_DIR": str(folder / name) for name in ("DATA", "MODELS", "OUTPUTS")},
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "handler.pod"], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            if '"ready"' in line:
                return time.perf_counter() - began
            lines.append(line)
        raise RuntimeError("the worker ended:\n" + "".join(lines[-20:]))
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def main(rounds: int = 7) -> dict[str, Any]:
    """Run both in turns, print, and return the result."""
    spent: dict[str, list[float]] = {"import torch": [], "worker ready": []}
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as name:
        folder = Path(name)
        with running_valkey(folder / "valkey") as server:
            import_torch_s()  # the first one reads from disk
            worker_ready_s(server.url, folder)
            for _ in range(rounds):
                spent["import torch"].append(import_torch_s())
                spent["worker ready"].append(worker_ready_s(server.url, folder))
    torch_s, ready_s = median(spent["import torch"]), median(spent["worker ready"])
    rows = [
        {"what": name, "median s": f"{median(values):.2f}", "least s": f"{min(values):.2f}"}
        for name, values in spent.items()
    ]
    print_table(f"Worker start, {rounds} rounds: ratio {ready_s / torch_s:.2f} (goal {GOAL})", rows)
    result = {
        "ratio": round(ready_s / torch_s, 3),
        "ready_s": round(ready_s, 2),
        "import_torch_s": round(torch_s, 2),
    }
    print_json("start", result)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
