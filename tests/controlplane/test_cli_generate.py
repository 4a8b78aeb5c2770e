"""`diffbox generate` without a server: from a picture and a prompt to a file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from controlplane import cli
from controlplane.cli_progress import Shown, clock, line
from tests.support import engine, workflows
from tests.support.pictures import gradient
from tests.support.processes import marked, new_mark
from tests.support.wait import wait_until

GENERATE = [sys.executable, "-m", "controlplane.cli", "generate"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """For a child process: folders of its own, and an engine without torch."""
    return {
        **os.environ,
        "DIFFBOX_DATA_DIR": str(tmp_path / "data"),
        "DIFFBOX_MODELS_DIR": str(tmp_path / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(tmp_path / "outputs"),
        "DIFFBOX_ENGINE": engine.PATH,
        "DIFFBOX_WORKFLOWS": workflows.ALL,
    }


def generate(*args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GENERATE, *args], check=False, capture_output=True, text=True, env=env, timeout=110
    )


def facts(path: Path) -> dict[str, Any]:
    """Codec, size, rate and number of frames as ffmpeg reads them from the file."""
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-c", "copy", "-f", "null", "-"]
    told = subprocess.run(argv, check=True, capture_output=True, text=True).stderr
    video = re.search(r"Video: (\w+).*?, (\d+)x(\d+).*?, ([\d.]+) fps", told)
    frames = re.findall(r"frame=\s*(\d+)", told)
    assert video, told
    codec, width, height, fps = video.groups()
    size = (int(width), int(height))
    return {"codec": codec, "size": size, "fps": float(fps), "frames": int(frames[-1])}


def test_a_job_of_clips_makes_all_that_were_asked_for(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = generate("clips", "--num-clips", "2", "-o", str(out), "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params"]["num_clips"] == 2
    assert out.exists()


def test_the_file_is_written_and_path_size_and_seed_are_told(
    env: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    told = generate("sleeper", "--seed", "7", "-o", str(out), env=env)
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    assert first == str(out)
    assert second.startswith("32 × 32, 5 frames, 8 frames/s, 0.00 MB, seed 7, in 0:0")
    assert facts(out) == {"size": (32, 32), "fps": 8.0, "codec": "h264", "frames": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_stages_are_told_on_stderr_and_json_prints_nothing_else(
    env: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    told = generate("sleeper", "-o", str(out), env=env)
    assert told.stderr.split() == ["starting", "denoising", "decoding", "saving"]
    told = generate("sleeper", "-o", str(out), "--force", "--json", env=env)
    result = json.loads(told.stdout)
    assert told.stderr == ""
    assert (result["status"], result["path"], result["frames"]) == ("completed", str(out), 5)
    assert result["size_bytes"] == out.stat().st_size
    assert result["params"]["seed"] == result["seed"]


def test_an_existing_file_is_overwritten_only_by_force(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    told = generate("sleeper", "-o", str(out), env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr == f"error: {out} exists: give another name, or --force\n"
    assert out.read_text() == "mine"
    assert generate("sleeper", "-o", str(out), "--force", env=env).returncode == 0
    assert facts(out)["frames"] == 5


def test_wrong_parameters_are_refused_before_the_engine_starts(
    env: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    told = generate("i2v", "--width", "481", "--prompt", "x", "-o", str(out), env=env)
    assert told.returncode == cli.EXIT_REJECTED
    assert told.stderr.splitlines() == [
        "error: input_image is required (--input-image)",
        "error: width=481 must be a multiple of 16 from 64 to 1920; nearest: 480 or 496 (--width)",
    ]
    assert not out.exists()


def test_a_broken_picture_is_refused_at_its_flag(env: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    told = generate("i2v", "--prompt", "x", "--input-image", str(broken), env=env)
    assert told.returncode == cli.EXIT_REJECTED
    assert "not a PNG, JPEG or WebP picture" in told.stderr
    assert told.stderr.endswith("(--input-image)\n")


@pytest.mark.parametrize(
    ("workflow", "prompt", "message"),
    [("raiser", "out_of_memory", "too little memory"), ("raiser", "x", "RuntimeError: a bug")],
)
def test_a_failed_job_ends_with_1_and_its_message(
    env: dict[str, str], workflow: str, prompt: str, message: str
) -> None:
    told = generate(workflow, "--prompt", prompt, env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.splitlines()[-1] == f"error: {message}"


def test_an_engine_that_dies_leaves_its_last_words(env: dict[str, str]) -> None:
    told = generate("crasher", env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert "error: the engine process died (signal 9)" in told.stderr
    told = generate("noop", env=env | {"DIFFBOX_ENGINE": "tests.support.engine:nothing"})
    assert told.returncode == cli.EXIT_FAILED
    assert "has no attribute 'nothing'" in told.stderr


def test_ctrl_c_cancels_the_job_and_leaves_nothing(env: dict[str, str], tmp_path: Path) -> None:
    out, mark = tmp_path / "out.mp4", new_mark()
    process = subprocess.Popen(
        [*GENERATE, "sleeper", "--seconds", "60", "--steps", "600", "-o", str(out)],
        env=env | mark,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as told:
        wait_until(lambda: told.readline() == "denoising\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == cli.EXIT_INTERRUPTED
        assert told.read() == "cancelled\n"
    assert list(tmp_path.iterdir()) == []
    assert marked(mark) == {}


@pytest.mark.slow
def test_a_picture_and_a_prompt_become_an_mp4_on_the_demo_weights(
    env: dict[str, str], tmp_path: Path
) -> None:
    """The real pipeline at a few million parameters, as a stranger without a GPU runs it."""
    photo, out = tmp_path / "photo.jpg", tmp_path / "out.mp4"
    gradient(320, 240).save(photo)
    del env["DIFFBOX_ENGINE"], env["DIFFBOX_WORKFLOWS"]
    words = ("--prompt", "a boat", "--input-image", str(photo), "-o", str(out))
    size = ("--resolution", "144x256", "--num-frames", "9", "--num-inference-steps", "2")
    told = generate("i2v", *words, *size, "--fps", "12", "--no-tiled", env=env)
    assert told.returncode == 0, told.stderr
    assert facts(out) == {"size": (256, 144), "fps": 12.0, "codec": "h264", "frames": 9}


def test_the_progress_line_shows_step_share_and_time_left() -> None:
    shown = Shown(stage="denoising", step=23, steps=50, fraction=0.46, eta_s=65.2)
    assert line(shown) == "denoising 23/50  " + "━" * 9 + "─" * 11 + "  46%  1:05 left"
    assert clock(3723) == "1:02:03"


def test_a_lora_that_is_not_here_is_told_before_the_engine_starts(
    env: dict[str, str], tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    gradient().save(picture)
    required = ("--prompt", "a boat", "--input-image", str(picture))
    told = generate("i2v", *required, "--lora", "high=none.safetensors", env=env)
    assert told.returncode != 0
    assert told.stderr.startswith("error: lora[0].high: there is no file 'none.safetensors'")
