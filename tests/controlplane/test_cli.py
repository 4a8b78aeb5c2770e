"""The `diffbox` command itself: fast help, error texts, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane import cli
from core.errors import InvalidParams, NotFound, Problem


def diffbox(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli", *args],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
    )


def test_help_names_every_command() -> None:
    told = diffbox("--help")
    assert told.returncode == 0
    assert all(f"\n  {name} " in told.stdout for name in cli.COMMANDS)


def test_help_comes_within_half_a_second() -> None:
    """The best of three, since other tests run beside it."""

    def took() -> float:
        began = time.monotonic()
        diffbox("--help")
        return time.monotonic() - began

    assert min(took() for _ in range(3)) < 0.5


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    told = diffbox(command, "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"usage: diffbox {command} ")


def test_an_unknown_command_is_refused_with_those_there_are() -> None:
    told = diffbox("make")
    assert told.returncode == cli.EXIT_REJECTED
    assert "invalid choice: 'make'" in told.stderr
    assert "'generate'" in told.stderr


def test_a_wrong_setting_is_named_with_its_value(tmp_path: Path) -> None:
    told = diffbox("up", "--port", "http", "--data-dir", str(tmp_path))
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr == "error: DIFFBOX_PORT='http' is not a whole number from 0 to 65535\n"


def test_refused_parameters_are_told_one_a_line_with_their_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = (Problem(field="tile_size", message="too small"), Problem(field="", message="no"))
    assert cli.report(InvalidParams("both", problems=problems)) == cli.EXIT_REJECTED
    assert capsys.readouterr().err == "error: too small (--tile-size)\nerror: no\n"


def test_other_errors_end_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.report(NotFound("no such job")) == cli.EXIT_FAILED
    assert capsys.readouterr().err == "error: no such job\n"
