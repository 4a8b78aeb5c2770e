"""From submit to started and to completed, over REST and WebSocket, for a job that does nothing.

    python -m benchmarks.bench_latency [JOBS]

The whole stack as a user starts it (`diffbox up`: Valkey with AOF, worker with the real engine
and torch loaded, control plane), one job at a time, one client on loopback. ComfyUI's figures on
such a machine, with its in-memory queue, are 2.0 and 3.6 ms (shared issue; not run here).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx
import websockets

from benchmarks.stack import running
from benchmarks.table import percentile, print_json, print_table

WARM_UP = 30
GOAL_STARTED_MS = 4.0
GOAL_COMPLETED_MS = 8.0


async def one_job(client: httpx.AsyncClient, socket: Any) -> dict[str, float]:
    """Milliseconds after the request was sent, by moment."""
    began = time.perf_counter()
    submitted = asyncio.create_task(client.post("/api/workflows/noop", json={}))
    moments: dict[str, float] = {}
    while "completed" not in moments:
        message = json.loads(await socket.recv())
        kind = {"job:queued": "queued", "job:started": "started", "job:complete": "completed"}
        if message["type"] in kind:
            moments[kind[message["type"]]] = (time.perf_counter() - began) * 1000
    response = await submitted
    response.raise_for_status()
    return moments


async def answered(client: httpx.AsyncClient) -> dict[str, float]:
    """Milliseconds until a submit is answered, and until a route that does nothing is."""
    began = time.perf_counter()
    (await client.post("/api/workflows/noop", json={})).raise_for_status()
    posted = time.perf_counter()
    await client.get("/api/nothing-here")
    return {"answer": (posted - began) * 1000, "http": (time.perf_counter() - posted) * 1000}


async def measure(url: str, jobs: int) -> dict[str, list[float]]:
    """All moments of all jobs, in milliseconds."""
    found: dict[str, list[float]] = {}
    async with (
        httpx.AsyncClient(base_url=url) as client,
        websockets.connect(url.replace("http", "ws") + "/ws", max_size=None) as socket,
    ):
        await socket.send(json.dumps({"type": "subscribe", "job_ids": ["*"]}))
        await socket.recv()
        while not (await client.get("/api/health")).json().get("workers"):
            await asyncio.sleep(0.1)
        for number in range(WARM_UP + jobs):
            moments = await one_job(client, socket)
            if number >= WARM_UP:
                for name, value in moments.items():
                    found.setdefault(name, []).append(value)
        for _ in range(jobs // 4):
            for name, value in (await answered(client)).items():
                found.setdefault(name, []).append(value)
            while json.loads(await socket.recv())["type"] != "job:complete":
                pass
    return found


def main(jobs: int = 200) -> dict[str, Any]:
    """Run, print, and return the result."""
    env = {"DIFFBOX_WORKFLOWS": "benchmarks.noop:Noop"}
    with running(["-m", "controlplane.cli", "up"], env) as url:
        found = asyncio.run(measure(url, jobs))
    goals = {"started": GOAL_STARTED_MS, "completed": GOAL_COMPLETED_MS}
    rows = [
        {
            "moment": name,
            "p50 ms": f"{percentile(found[name], 0.5):.2f}",
            "p95 ms": f"{percentile(found[name], 0.95):.2f}",
            "goal p50 ms": goals.get(name, ""),
        }
        for name in ("http", "answer", "queued", "started", "completed")
    ]
    print_table(f"Submit to …, {jobs} no-op jobs one after the other", rows)
    result = {f"{name}_p50_ms": round(percentile(values, 0.5), 2) for name, values in found.items()}
    print_json("latency", result)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
