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

import websockets

from benchmarks.stack import running
from benchmarks.table import percentile, print_json, print_table

WARM_UP = 30
GOAL_STARTED_MS = 4.0
GOAL_COMPLETED_MS = 8.0


class Client:
    """HTTP/1.1 over one kept connection, in a few lines, so that little of the client is timed."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        return int(answer.split(" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def one_job(client: Client, socket: Any) -> dict[str, float]:
    """Milliseconds after the request was sent, by moment."""
    began = time.perf_counter()
    submitted = asyncio.create_task(client.request("POST", "/api/workflows/noop", b"{}"))
    moments: dict[str, float] = {}
    submitted.add_done_callback(
        lambda _: moments.setdefault("answer", (time.perf_counter() - began) * 1000)
    )
    kinds = {"job:queued": "queued", "job:started": "started", "job:complete": "completed"}
    while "completed" not in moments:
        message = json.loads(await socket.recv())
        if message["type"] in kinds:
            moments[kinds[message["type"]]] = (time.perf_counter() - began) * 1000
    status, body = await submitted
    assert status == 202, body
    return moments


async def floor(client: Client) -> float:
    """Milliseconds of a request that does nothing: guard, routing, a 404."""
    began = time.perf_counter()
    await client.request("GET", "/api/nothing-here")
    return (time.perf_counter() - began) * 1000


async def measure(port: int, jobs: int) -> dict[str, list[float]]:
    """All moments of all jobs, in milliseconds."""
    found: dict[str, list[float]] = {}
    client = Client(port)
    await client.connect()
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as socket:
        await socket.send(json.dumps({"type": "subscribe", "job_ids": ["*"]}))
        await socket.recv()
        while b'"ready"' not in (await client.request("GET", "/api/health"))[1]:
            await asyncio.sleep(0.1)
        for number in range(WARM_UP + jobs):
            moments = await one_job(client, socket) | {"http": await floor(client)}
            if number >= WARM_UP:
                for name, value in moments.items():
                    found.setdefault(name, []).append(value)
    client.close()
    return found


def main(jobs: int = 200) -> dict[str, Any]:
    """Run, print, and return the result."""
    env = {"DIFFBOX_WORKFLOWS": "benchmarks.noop:Noop"}
    with running(["-m", "controlplane.cli", "up"], env) as url:
        found = asyncio.run(measure(int(url.rpartition(":")[2]), jobs))
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
