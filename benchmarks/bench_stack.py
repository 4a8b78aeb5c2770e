"""All benchmarks of the stack, one after the other, and one JSON line with the goals.

    python -m benchmarks.bench_stack

(a) Engine against WanVideoPipeline called directly   (b) submit to started and completed
(c) worker start against `import torch`               (d) start to first page
"""

from __future__ import annotations

from benchmarks import bench_engine, bench_latency, bench_page, bench_start
from benchmarks.table import print_json


def main() -> None:
    """Run all four."""
    results = {
        "engine": bench_engine.main(),
        "latency": bench_latency.main(),
        "start": bench_start.main(),
        "page": bench_page.main(),
    }
    print_json("stack", results)


if __name__ == "__main__":
    main()
