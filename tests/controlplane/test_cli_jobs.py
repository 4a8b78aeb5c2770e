"""`diffbox jobs` and `diffbox generate --url` against a running diffbox with a password."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane import cli
from controlplane.cli_jobs import described, row
from controlplane.records import JobError, JobProgress, JobRecord
from core.protocol import JobStatus
from tests.support import workflows
from tests.support.pictures import gradient
from tests.support.stack import Stack, running_stack
from tests.support.wait import wait_until

PASSWORD = "correct horse"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(folder, DIFFBOX_BACKEND="memory", DIFFBOX_PASSWORD=PASSWORD) as stack:
        yield stack


@pytest.fixture
def env(stack: Stack) -> dict[str, str]:
    return {
        **os.environ,
        "DIFFBOX_URL": stack.url,
        "DIFFBOX_TOKEN": PASSWORD,
        "DIFFBOX_WORKFLOWS": workflows.ALL,
    }


def argv(*args: str) -> list[str]:
    return [sys.executable, "-m", "controlplane.cli", *args]


def diffbox(*args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*args), check=False, capture_output=True, text=True, env=env, timeout=60
    )


def newest(env: dict[str, str]) -> JobRecord:
    listed = json.loads(diffbox("jobs", "list", "--limit", "1", "--json", env=env).stdout)
    return JobRecord.model_validate(listed[0])


def test_a_job_of_the_server_becomes_a_local_file(env: dict[str, str], tmp_path: Path) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.mp4"
    gradient().save(photo)
    words = ("--prompt", "over the wire", "--input-image", str(photo), "-o", str(out))
    told = diffbox("generate", "sleeper", *words, "--json", env=env)
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert out.stat().st_size == result["size_bytes"]
    assert result["params"]["input_image"].startswith("upload:")
    assert newest(env).id == result["job_id"]


def test_the_list_and_one_job_are_shown(env: dict[str, str], stack: Stack, tmp_path: Path) -> None:
    out = str(tmp_path / "out.mp4")
    made = diffbox("generate", "sleeper", "--prompt", "shown", "-o", out, env=env)
    assert made.returncode == 0, made.stderr
    job = newest(env)
    assert job.id in diffbox("jobs", env=env).stdout
    shown = diffbox("jobs", "show", job.id, env=env)
    assert shown.returncode == 0
    assert f"{stack.url}/outputs/{job.id}/" in shown.stdout
    assert "  prompt='shown'" in shown.stdout


def test_what_the_server_refuses_is_told_at_the_flag(env: dict[str, str]) -> None:
    told = diffbox("generate", "i2v", "--width", "481", "--prompt", "x", env=env)
    assert told.returncode == cli.EXIT_REJECTED
    assert "nearest: 480 or 496 (--width)" in told.stderr


def test_a_job_that_fails_on_the_server_ends_with_1(env: dict[str, str]) -> None:
    told = diffbox("generate", "raiser", "--prompt", "out_of_memory", env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.endswith("error: too little memory\n")


def test_ctrl_c_cancels_the_job_on_the_server(env: dict[str, str]) -> None:
    words = argv("generate", "sleeper", "--seconds", "60", "--steps", "600")
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr as told:
        wait_until(lambda: told.readline() == "denoising\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == cli.EXIT_INTERRUPTED
    assert newest(env).status is JobStatus.CANCELLED


def test_watching_follows_to_the_end_and_cancel_ends_it(env: dict[str, str], stack: Stack) -> None:
    auth = {"Authorization": f"Bearer {PASSWORD}"}
    body = {"seconds": 60, "steps": 600}
    sent = stack.request("POST", "/api/workflows/sleeper", json=body, headers=auth)
    watching = subprocess.Popen(
        argv("jobs", "watch", sent["job_id"]),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stderr
    wait_until(lambda: watching.stderr and watching.stderr.readline() == "denoising\n")
    assert diffbox("jobs", "cancel", sent["job_id"], env=env).returncode == 0
    told, _ = watching.communicate(timeout=20)
    assert watching.returncode == 0
    assert told.startswith(f"{sent['job_id']}  cancelled")


def test_without_the_password_the_server_says_no(env: dict[str, str]) -> None:
    told = diffbox("jobs", env=env | {"DIFFBOX_TOKEN": "wrong"})
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.startswith("error: ")
    assert "DIFFBOX_TOKEN" in told.stderr


def test_a_job_that_is_unknown_is_an_error(env: dict[str, str]) -> None:
    told = diffbox("jobs", "show", "nothing", env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.startswith("error: ")
    assert diffbox("jobs", "show", env=env).returncode == cli.EXIT_REJECTED


def test_a_server_that_is_not_there_is_named(env: dict[str, str]) -> None:
    told = diffbox("jobs", "--url", "http://127.0.0.1:9", env=env)
    assert told.returncode == cli.EXIT_FAILED
    assert told.stderr.startswith("error: http://127.0.0.1:9 can't be reached")


def test_a_row_shows_how_far_a_job_is_and_cuts_its_title() -> None:
    record = JobRecord(
        id="1",
        workflow="sleeper",
        params={"prompt": "many\nwords " * 9},
        status=JobStatus.RUNNING,
        created_at=NOON,
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=65),
        progress=JobProgress(fraction=0.42),
    )
    assert row(record).startswith("1  running 42%       1:05  sleeper  many words many")
    assert row(record).endswith("…")


def test_a_described_job_says_why_it_failed() -> None:
    record = JobRecord(
        id="1",
        workflow="sleeper",
        params={},
        status=JobStatus.FAILED,
        created_at=NOON,
        error=JobError(code="x", message="no luck"),
    )
    assert "  error: no luck" in described(record, "http://x").splitlines()
