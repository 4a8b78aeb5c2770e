"""What the computer gets wrong: a full or read-only disk, a taken port, weights that are damaged.

Whatever is refused is told before anything starts, or becomes the job's error.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from controlplane import cli
from core.catalog import MODELS
from tests.support import workflows
from tests.support.disk import fill, small_disk
from tests.support.pictures import encoded, gradient
from tests.support.stack import Stack, running_stack
from tests.support.workflows import Sleeper

pytestmark = pytest.mark.serial

DISK_WORDS = "no space left on device (0 MB free)"
WAN = next(row for row in MODELS if not row.demo)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DIFFBOX_DATA_DIR": str(tmp_path / "data"),
        "DIFFBOX_MODELS_DIR": str(tmp_path / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(tmp_path / "outputs"),
        "DIFFBOX_ENGINE": "tests.support.engine:build",
        "DIFFBOX_WORKFLOWS": workflows.ALL,
        "DIFFBOX_PORT": "0",
    }


def diffbox(*args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "controlplane.cli", *args]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize("backend", ["valkey", "memory"])
@pytest.mark.parametrize("command", ["up", "ui"])
def test_a_taken_port_is_named_before_anything_starts(
    env: dict[str, str], tmp_path: Path, command: str, backend: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = diffbox(command, "--port", str(port), env=env | {"DIFFBOX_BACKEND": backend})
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.startswith(f"error: DIFFBOX_PORT={port}: 127.0.0.1:{port} can't be used:")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("command", ["up", "ui"])
def test_a_read_only_data_folder_is_named_before_anything_starts(
    env: dict[str, str], tmp_path: Path, command: str
) -> None:
    with small_disk(tmp_path / "data", "ro"):
        told = diffbox(command, env=env)
    assert told.returncode == cli.EXIT_FAILED
    said = f"DIFFBOX_DATA_DIR={tmp_path}/data: no file can be written there: Read-only file system"
    assert told.stderr == f"error: {said}\n"


def test_generate_into_a_read_only_folder_says_so(env: dict[str, str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "there", "ro") as folder:
        told = diffbox("generate", "noop", "--output", str(folder / "out.mp4"), env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.startswith(f"error: can't write to {folder}: read-only file system (")


def test_generate_onto_a_full_disk_says_so_and_leaves_nothing(
    env: dict[str, str], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "there", "size=64k") as folder:
        filler = fill(folder)
        told = diffbox("generate", "sleeper", "--output", str(folder / "out.mp4"), env=env)
        left = list(folder.iterdir())
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.splitlines()[-1].endswith(DISK_WORDS)
    assert left == [filler]


def test_a_job_whose_disk_is_full_fails_in_words_and_the_next_one_works(tmp_path: Path) -> None:
    env = {"DIFFBOX_BACKEND": "memory", "DIFFBOX_RETRY_DELAY_S": "0.1"}
    with (
        small_disk(tmp_path / "outputs", "size=64k") as folder,
        running_stack(tmp_path, **env) as up,
    ):
        filler = fill(folder)
        failed = up.until(up.submit(Sleeper.id), "failed")
        assert failed["error"]["code"] == "storage_failed"
        assert failed["error"]["message"].endswith(DISK_WORDS)
        assert [path for path in folder.rglob("*") if path.is_file()] == [filler]
        filler.unlink()
        assert up.until(up.submit(Sleeper.id), "completed")["artifacts"]
        assert up.stop() == 0


def test_an_upload_onto_a_full_disk_is_507_and_works_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", "size=1m") as folder:
        with running_stack(tmp_path, DIFFBOX_BACKEND="memory") as up:
            filler = fill(folder)
            answer = upload(up)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (507, "storage_failed")
            assert error["retryable"] and error["message"].endswith(DISK_WORDS)
            assert list((folder / "uploads").iterdir()) == []
            filler.unlink()
            assert upload(up).status_code == 201


# --- weights -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The real engine, on files that look like the large model's."""
    folder = tmp_path_factory.mktemp("real")
    for file in WAN.files:
        path = folder / "models/base" / file.repo / file.pattern.replace("*", "")
        if file.role == "tokenizer":
            path /= "tokenizer.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": np.zeros(64, np.float32)}, path)
    own = {"DIFFBOX_ENGINE": "handler.compose:build_engine", "DIFFBOX_RETRY_DELAY_S": "0.1"}
    with running_stack(folder, DIFFBOX_BACKEND="memory", **own) as stack:
        yield stack


def test_damaged_and_missing_weights_are_told_at_the_model(real: Stack) -> None:
    [vae] = real.folder.rglob("Wan2.1_VAE.safetensors")
    os.truncate(vae, vae.stat().st_size - 100)
    error = failed_on_wan(real)
    assert f"{vae} is damaged (truncated: " in error["message"]
    vae.unlink()
    error = failed_on_wan(real)
    assert "Missing: " in error["message"] and "Wan2.1_VAE.safetensors (vae)" in error["message"]


def failed_on_wan(stack: Stack) -> dict[str, Any]:
    ref = upload(stack).json()["ref"]
    job_id = stack.submit("i2v", prompt="a boat", input_image=ref, model=WAN.id)
    error: dict[str, Any] = stack.until(job_id, "failed")["error"]
    assert (error["code"], error["field"]) == ("model_missing", "model")
    return error


def upload(stack: Stack) -> httpx.Response:
    headers = {"content-type": "image/png"}
    return httpx.post(stack.url + "/api/uploads", content=encoded(gradient()), headers=headers)
