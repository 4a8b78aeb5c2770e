"""The real control plane as a process of its own, with the memory backend, on a free port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.support.engine import PATH
from tests.support.wait import wait_until

READY_S = 60
STOP_S = 30
WITHOUT_TORCH = {
    "DIFFBOX_ENGINE": PATH,
    "DIFFBOX_WORKFLOWS": ",".join(
        f"tests.support.workflows:{name}" for name in ("Sleeper", "Raiser", "Clips")
    ),
}
"""An engine that makes no pictures: `sleeper` takes its time, `raiser` fails, `clips` waits."""


class PageProcess:
    """A control plane that can be stopped and started again on the same port and folders."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.log: list[str] = []
        self._env = {
            **os.environ,
            "DIFFBOX_BACKEND": "memory",
            "DIFFBOX_PORT": self.url.rpartition(":")[2],
            "DIFFBOX_DATA_DIR": str(folder / "data"),
            "DIFFBOX_MODELS_DIR": str(folder / "models"),
            "DIFFBOX_OUTPUTS_DIR": str(folder / "outputs"),
            **env,
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns once it serves."""
        self.log.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.main"],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        wait_until(lambda: any(_event(line) == "ready" for line in self.log), READY_S)

    def stop(self) -> None:
        """End it, and its engine with it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            self.log.extend(process.stderr)


def _event(line: str) -> object:
    try:
        return json.loads(line).get("event")
    except ValueError:  # a line of a library
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
