"""Starts the whole of diffbox on a free port for a benchmark, and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

READY_TIMEOUT_S = 120


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], extra_env: Mapping[str, str]) -> Iterator[str]:
    """`python -m …` with folders of its own; gives the URL once /api/health answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="diffbox-bench-") as folder:
        env = {
            **os.environ,
            "DIFFBOX_PORT": str(port),
            **{f"DIFFBOX_{n}_DIR": str(Path(folder) / n) for n in ("DATA", "MODELS", "OUTPUTS")},
            **extra_env,
        }
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], env=env, stdout=log, stderr=log)
        try:
            wait_for(url, process, Path(folder, "log"))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the health check answers.

    Raises:
        RuntimeError: the process ended, or took too long; with the end of its log.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/health", timeout=2).status_code == 200:
                return
        time.sleep(0.02)
    raise RuntimeError(f"no answer from {url}:\n{log.read_text(errors='replace')[-3000:]}")
