"""What the doctor finds on good and bad computers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from controlplane import cli
from controlplane.cli_doctor import as_text
from controlplane.config import load_settings
from controlplane.doctor import Finding, findings
from controlplane.valkey_server import running_valkey
from core.catalog import model
from core.config import Env
from tests.support import engine


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A computer without GPU, with free ports and folders of its own."""
    return {
        "PATH": str(tmp_path),
        "DIFFBOX_DATA_DIR": str(tmp_path / "data"),
        "DIFFBOX_MODELS_DIR": str(tmp_path / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(tmp_path / "outputs"),
        "DIFFBOX_PORT": "0",
    }


def found(env: Mapping[str, str], *, hashed: bool = False) -> dict[str, Finding]:
    told = findings(load_settings(Env(env)), env, hashed=hashed)
    return {finding.topic: finding for finding in told}


def test_a_fresh_computer_needs_nothing_to_be_mended(env: dict[str, str]) -> None:
    facts = found(env)
    assert {topic for topic, finding in facts.items() if finding.level == "fail"} == set()
    assert facts["model wan-demo"].text == "is made on first use"
    assert "torch" in facts["packages of the worker"].text
    assert facts["ffmpeg"].text.endswith("with libx264")
    assert "is started by diffbox up" in facts["valkey"].text


def test_looking_changes_nothing(env: dict[str, str], tmp_path: Path) -> None:
    found(env)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_listed_by_file(env: dict[str, str]) -> None:
    finding = found(env)["model wan2.2-i2v-a14b"]
    assert finding.level == "warn"
    assert "high_noise_model/diffusion_pytorch_model*.safetensors" in finding.text
    assert finding.advice


def test_weights_are_hashed_whole_only_when_asked(env: dict[str, str], tmp_path: Path) -> None:
    for file in model("wan-demo").files:
        path = tmp_path / "models" / "base" / file.repo / file.pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert found(env)["model wan-demo"].text.endswith("whole")
    assert not (tmp_path / "data").exists()
    assert found(env, hashed=True)["model wan-demo"].text.endswith("their sha256 is kept")
    kept = json.loads((tmp_path / "data" / "fingerprints.json").read_text(encoding="utf-8"))
    assert kept[next(key for key in kept if "vae" in key)] == sha256(b"\2" + b"\0" * 7 + b"{}")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_damaged_weight_file_must_be_mended(env: dict[str, str], tmp_path: Path) -> None:
    row = model("wan-demo")
    for file in row.files:
        path = tmp_path / "models" / "base" / file.repo / file.pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    finding = found(env)["model wan-demo"]
    assert finding.level == "fail"
    assert "is damaged" in finding.text


def test_a_folder_that_is_a_file_must_be_mended(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    finding = found(env)["folder DIFFBOX_DATA_DIR"]
    assert finding.level == "fail"
    assert "set DIFFBOX_DATA_DIR" in finding.advice


def nvidia_smi(folder: Path) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 143000 MiB, 580.1'\n")
    program.chmod(0o755)


def test_a_gpu_is_told_with_its_memory(env: dict[str, str], tmp_path: Path) -> None:
    assert found(env)["gpu"].level == "warn"
    nvidia_smi(tmp_path)
    facts = found(env | {"DIFFBOX_ENGINE": engine.PATH})
    assert facts["gpu"].text == "NVIDIA H200, 143000 MiB of 143771 MiB free, driver 580.1"


@pytest.mark.slow
def test_a_gpu_that_torch_can_not_use_must_be_mended(env: dict[str, str], tmp_path: Path) -> None:
    nvidia_smi(tmp_path)
    finding = found(env | {"CUDA_VISIBLE_DEVICES": ""})["torch"]
    assert finding.level == "fail"
    assert "can't use the GPU" in finding.text


def test_an_interpreter_without_packages_must_be_mended(
    env: dict[str, str], tmp_path: Path
) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I "$@"\n')
    bare.chmod(0o755)
    finding = found(env | {"DIFFBOX_PYTHON_PATH": str(bare)})["packages of the worker"]
    assert finding.level == "fail"
    assert finding.text.startswith("lacks handler, core, redis")
    assert finding.advice == f"{bare} -m pip install 'diffbox[worker]'"


def test_a_port_of_another_program_must_be_mended(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        finding = found(env | {"DIFFBOX_PORT": port})["port"]
    assert finding.level == "fail"
    assert finding.text.startswith(f"DIFFBOX_PORT={port}: 127.0.0.1:{port} can't be used: another")


def test_a_valkey_of_ones_own_is_asked(env: dict[str, str], tmp_path: Path) -> None:
    with running_valkey(tmp_path / "own") as server:
        answer = found(env | {"DIFFBOX_VALKEY_URL": server.url})["valkey"]
    assert answer.level == "ok"
    silence = found(env | {"DIFFBOX_VALKEY_URL": server.url})["valkey"]
    assert silence.level == "fail"
    assert "DIFFBOX_VALKEY_URL does not answer" in silence.text


def test_without_a_password_the_page_is_only_for_this_computer(env: dict[str, str]) -> None:
    assert found(env)["password"].level == "ok"
    assert found(env | {"DIFFBOX_HOST": "0.0.0.0"})["password"].level == "warn"
    assert found(env | {"DIFFBOX_PASSWORD": "long enough"})["password"].text == "is set"


def test_a_wrong_setting_is_one_of_the_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFBOX_PORT", "http")
    assert cli.main(["doctor"]) == cli.EXIT_FAILED
    assert capsys.readouterr().out.startswith("fail  settings: DIFFBOX_PORT='http'")


def test_advice_stands_on_its_own_line() -> None:
    finding = Finding(level="warn", topic="gpu", text="none", advice="buy one")
    assert as_text(finding) == f"warn  gpu: none{os.linesep}      → buy one"
