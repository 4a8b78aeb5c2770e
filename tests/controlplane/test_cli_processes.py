"""`diffbox ui` and `diffbox worker`: one process of the stack, alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.config import load_settings
from core.config import Env
from core.errors import ConfigError
from tests.support import engine
from tests.support.processes import marked, new_mark
from tests.support.wait import wait_until


def argv(*args: str) -> list[str]:
    return [sys.executable, "-m", "controlplane.cli", *args]


def test_ui_serves_alone_and_flags_win_over_variables(tmp_path: Path) -> None:
    log, mark = tmp_path / "log", new_mark()
    env = {**os.environ, **mark, "DIFFBOX_BACKEND": "memory", "DIFFBOX_ENGINE": engine.PATH}
    folders = ("--data-dir", str(tmp_path / "d"), "--outputs-dir", str(tmp_path / "o"))
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv("ui", "--port", "0", *folders),
            env=env | {"DIFFBOX_PORT": "1", "DIFFBOX_DATA_DIR": "/proc/no"},
            stderr=file,
        )
    ready = wait_until(lambda: [x for x in log.read_text().splitlines() if '"ready"' in x], 30)
    assert json.loads(ready[0])["url"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    wait_until(lambda: marked(mark) == {})


def test_worker_is_the_worker_and_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    told = subprocess.run(
        argv("worker", "--data-dir", str(tmp_path)),
        env={**os.environ, "DIFFBOX_BEAT_S": "often"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 78
    assert "DIFFBOX_BEAT_S='often'" in json.loads(told.stderr)["event"]


def test_the_interpreter_may_be_given_as_its_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    settings = load_settings(Env({"DIFFBOX_PYTHON_PATH": str(tmp_path)}))
    assert settings.python_path == str(tmp_path / "bin" / "python")
    with pytest.raises(ConfigError, match="neither a Python program nor a virtual environment"):
        load_settings(Env({"DIFFBOX_PYTHON_PATH": str(tmp_path / "bin")}))
