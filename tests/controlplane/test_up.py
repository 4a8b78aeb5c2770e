"""What `diffbox up` starts, and what it refuses to start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from controlplane import up
from controlplane.config import Settings, load_settings
from controlplane.supervisor import Child
from core.config import Env
from core.errors import ConfigError
from tests.support import engine
from tests.support.processes import marked, new_mark
from tests.support.stack import running_stack


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "DIFFBOX_DATA_DIR": str(tmp_path / "data"),
        "DIFFBOX_MODELS_DIR": str(tmp_path / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(tmp_path / "outputs"),
        "DIFFBOX_PORT": "0",
        "DIFFBOX_ENGINE": engine.PATH,
    }


def settings(env: Mapping[str, str]) -> Settings:
    return load_settings(Env(env))


def children(env: Mapping[str, str], gpus: tuple[str, ...] = ()) -> list[Child]:
    return up.children(settings(env), env, gpus=gpus)


def test_the_queue_comes_before_workers_and_workers_before_the_page(env: dict[str, str]) -> None:
    kept = children(env | {"DIFFBOX_WORKER_COUNT": "2"})
    assert [child.name for child in kept] == ["valkey", "worker-1", "worker-2", "page"]
    assert [child.rank for child in kept] == [0, 1, 1, 2]
    addresses = {child.env["DIFFBOX_VALKEY_URL"] for child in kept if child.env}
    assert len(addresses) == 1
    assert addresses.pop().startswith("unix://")


def test_a_valkey_of_ones_own_is_not_started(env: dict[str, str]) -> None:
    kept = children(env | {"DIFFBOX_VALKEY_URL": "redis://queue:6379"})
    assert [child.name for child in kept] == ["worker-1", "page"]
    assert all(
        child.env["DIFFBOX_VALKEY_URL"] == "redis://queue:6379" for child in kept if child.env
    )


def test_with_the_memory_backend_the_page_is_enough(env: dict[str, str]) -> None:
    assert [child.name for child in children(env | {"DIFFBOX_BACKEND": "memory"})] == ["page"]


def test_each_worker_has_its_gpu_and_its_name(env: dict[str, str]) -> None:
    kept = children(env | {"DIFFBOX_WORKER_COUNT": "3"}, gpus=("GPU-a", "GPU-b"))[1:4]
    assert [c.env["CUDA_VISIBLE_DEVICES"] for c in kept if c.env] == ["GPU-a", "GPU-b", "GPU-a"]
    assert len({c.env["DIFFBOX_WORKER_ID"] for c in kept if c.env}) == 3


def test_a_single_gpu_is_left_as_it_is(env: dict[str, str]) -> None:
    worker = children(env, gpus=("GPU-a",))[1]
    assert worker.env is not None
    assert "CUDA_VISIBLE_DEVICES" not in worker.env


def test_a_worker_may_end_its_job_before_it_is_killed(env: dict[str, str]) -> None:
    worker = children(env | {"DIFFBOX_GRACE_S": "20", "DIFFBOX_DRAIN_S": "40"})[1]
    assert worker.grace_s > 60


def test_gpus_are_those_that_are_allowed() -> None:
    assert up.find_gpus({"CUDA_VISIBLE_DEVICES": "1, 3"}) == ["1", "3"]
    assert up.find_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_gpus_are_asked_for_where_none_are_named(tmp_path: Path) -> None:
    asked = tmp_path / "nvidia-smi"
    asked.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    asked.chmod(0o755)
    assert up.find_gpus({"PATH": str(tmp_path)}) == ["GPU-a", "GPU-b"]
    assert up.find_gpus({"PATH": "/no"}) == []


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({"DIFFBOX_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"DIFFBOX_PORT": "9000", "DIFFBOX_HOST": "0.0.0.0"}, "http://127.0.0.1:9000"),
        ({"DIFFBOX_PORT": "9000", "DIFFBOX_HOST": "::1"}, "http://[::1]:9000"),
        ({"DIFFBOX_PORT": "9000", "RUNPOD_POD_ID": "AbC"}, "https://abc-9000.proxy.runpod.net"),
    ],
)
def test_the_address_is_one_that_a_browser_can_open(values: dict[str, str], address: str) -> None:
    assert up.address(settings(values)) == address


def refusal(env: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        up.check(settings(env))
    return caught.value.message


def test_an_open_port_is_chosen_before_anything_starts(env: dict[str, str]) -> None:
    assert up.check(settings(env)).port > 0


def test_a_taken_port_is_named(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refusal(env | {"DIFFBOX_PORT": str(port)})
    assert message.startswith(f"DIFFBOX_PORT={port}: 127.0.0.1:{port} can't be used: another")


def test_an_address_of_another_computer_is_refused(env: dict[str, str]) -> None:
    message = refusal(env | {"DIFFBOX_HOST": "192.0.2.1"})
    assert "192.0.2.1" in message


def test_a_folder_that_can_not_be_written_is_named(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    message = refusal(env | {"DIFFBOX_DATA_DIR": str(folder)})
    assert message == f"DIFFBOX_DATA_DIR={folder}: no file can be written there: Not a directory"


def test_a_worker_without_its_packages_is_refused_with_the_command(
    env: dict[str, str], tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I "$@"\n')
    bare.chmod(0o755)
    message = refusal(env | {"DIFFBOX_PYTHON_PATH": str(bare)})
    assert message.startswith(f"DIFFBOX_PYTHON_PATH={bare} lacks handler, core, redis")
    assert message.endswith(f"{bare} -m pip install 'diffbox[worker]'")


def test_a_wrong_setting_of_the_worker_stops_all_with_1(env: dict[str, str]) -> None:
    """The worker alone reads DIFFBOX_BEAT_S; it must not be started for ever."""
    mark = new_mark()
    told = subprocess.run(
        [sys.executable, "-m", "controlplane.cli", "up"],
        env={**os.environ, **env, **mark, "DIFFBOX_BEAT_S": "often"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 1
    assert "DIFFBOX_BEAT_S='often' is not a number of seconds" in told.stderr
    assert "error: worker-1 ended with exit code 78" in told.stderr
    assert marked(mark) == {}


def test_a_password_is_made_and_told_once_when_others_can_reach_the_page(tmp_path: Path) -> None:
    public = {"RUNPOD_POD_ID": "abc", "DIFFBOX_BACKEND": "memory"}
    with running_stack(tmp_path, **public) as stack:
        lines = stack.said_file.read_text().splitlines()
        assert len([line for line in lines if "assword" in line]) == 1
        assert stack.stop() == 0
        stack.start()
        assert "assword" not in stack.said_file.read_text()
