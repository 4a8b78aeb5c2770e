"""What people get wrong with clips, prompts and going on, at a running diffbox.

The engine here can load nothing: whatever is refused in words of its own is refused before that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support import workflows
from tests.support.pictures import encoded, gradient
from tests.support.stack import Stack, running_stack
from tests.support.wait import wait_until

pytestmark = pytest.mark.serial

PAGE: Final = "https://example.org/a.png"
NOWHERE: Final = "clip:00000000-0000-7000-8000-000000000000/0"
PARAMS: Final[tuple[tuple[str, dict[str, Any], str], ...]] = (
    ("prompts", {"prompts": []}, "at least 1 item"),
    ("prompts", {"prompts": ["a", " "]}, "number 2 is blank"),
    ("prompts", {"prompts": "a"}, "tuple"),
    ("num_clips", {"prompts": ["a", "b"], "num_clips": 1}, "there are 2 prompts"),
    ("num_clips", {"num_clips": 0}, "must be from 1 to 1000"),
    ("num_clips", {"infinite_mode": True, "num_clips": 3}, "counts only when infinite_mode is"),
    ("num_motion_frames", {"num_motion_frames": 7}, "nearest: 5 or 9"),
    ("num_motion_frames", {"num_motion_frames": 13, "num_frames": 13}, "overlaps a whole clip"),
    ("seam", {"seam": "melt"}, "'cut' or 'blend'"),
    ("colour_match", {"colour_match": 2}, "must be from 0"),
    ("continue_from", {"continue_from": "last"}, "clip:<job id>/<index from 0>"),
    ("continue_from", {"continue_from": NOWHERE}, "there is no job 00000000-0000"),
    ("end_image", {"end_image": PAGE}, "'end_image' is not a parameter"),
    ("prompt", {"prompt": "a"}, "did you mean 'prompts'"),
    ("camera_direction", {"camera_direction": "left"}, "is not a parameter"),
    ("model", {"model": "wan2.1-i2v-14b-480p"}, "is not one of"),
    ("lora", {"lora": [{}]}, "lora"),
    ("lora", {"lora": [{"high": "gone.safetensors"}]}, "gone.safetensors"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), DIFFBOX_BACKEND="memory") as stack:
        yield stack


def photo(stack: Stack) -> str:
    headers = {"content-type": "image/png"}
    picture = encoded(gradient(64, 48), "PNG")
    answer = httpx.post(stack.url + "/api/uploads", content=picture, headers=headers)
    return str(answer.json()["ref"])


@pytest.mark.parametrize(("field", "params", "words"), PARAMS)
def test_rest_refuses_a_bad_value_at_its_field(
    stack: Stack, field: str, params: dict[str, Any], words: str
) -> None:
    raw = {"prompts": ["a boat"], "input_image": PAGE, **params}
    answer = httpx.post(stack.url + "/api/workflows/svi", json=raw)
    assert answer.status_code in (409, 422), answer.text
    problems = answer.json()["error"]["problems"]
    said = {problem["field"]: problem["message"] for problem in problems}
    assert words in said[field]


def test_the_command_line_says_the_same(stack: Stack, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded(gradient(64, 48), "PNG"))
    argv = [
        *(sys.executable, "-m", "controlplane.cli", "generate", "svi", "--url", stack.url),
        *("--input-image", str(picture), "--prompts", "a", "--prompts", "b", "--num-clips", "1"),
    ]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there are 2 prompts" in done.stderr


# --- clips that were made, and then spoilt --------------------------------------------------------


@pytest.fixture
def film(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """A job with two clips."""
    for index in range(9):
        (tmp_path / str(index)).touch()
    job_id = stack.submit("clips", prompts=["a", "b"], num_clips=2, prompt=str(tmp_path))
    return stack.until(job_id, "completed")


def goes_on(stack: Stack, job_id: str, after: int) -> dict[str, Any]:
    """How a job ends that keeps clips up to `after`."""
    path = f"{stack.url}/api/jobs/{job_id}/continue"
    answer = httpx.post(path, json={"after": after, "params": {"num_clips": 1, "prompts": ["c"]}})
    assert answer.status_code == 202, answer.text
    url = f"{stack.url}/api/jobs/{answer.json()['job_id']}"
    wait_until(lambda: httpx.get(url).json()["status"] not in ("queued", "running"))
    found: dict[str, Any] = httpx.get(url).json()
    return found


def records(stack: Stack, job_id: str) -> list[Path]:
    return sorted((stack.folder / "outputs" / job_id / "clips").glob("*.json"))


def test_a_clip_of_an_older_version_is_refused(stack: Stack, film: dict[str, Any]) -> None:
    path = records(stack, film["id"])[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    error = goes_on(stack, film["id"], 1)["error"]
    assert (error["code"], error["field"]) == ("invalid_params", "go_on_from")
    assert "stored by another version of diffbox" in error["message"]


def test_a_clip_whose_files_are_gone_is_refused(stack: Stack, film: dict[str, Any]) -> None:
    for path in records(stack, film["id"]):
        path.unlink()
    assert "it has no clips here" in goes_on(stack, film["id"], 0)["error"]["message"]


def test_a_damaged_clip_is_refused_and_an_earlier_one_is_not(
    stack: Stack, film: dict[str, Any]
) -> None:
    record = json.loads(records(stack, film["id"])[1].read_text())
    folder = stack.folder / "outputs" / film["id"] / "clips"
    (folder / record["segment"]["filename"]).write_bytes(b"")
    assert "is damaged" in goes_on(stack, film["id"], 1)["error"]["message"]
    assert goes_on(stack, film["id"], 0)["status"] == "completed"


def test_workflows_do_not_share_clips(stack: Stack, film: dict[str, Any]) -> None:
    assert workflows.Clips.id == film["workflow"]
    raw = {
        "prompts": ["a"],
        "input_image": photo(stack),
        "continue_from": f"clip:{film['id']}/0",
    }
    answer = httpx.post(stack.url + "/api/workflows/svi", json=raw)
    assert answer.status_code == 422
    assert "was made with 'clips', not 'svi'" in answer.json()["error"]["message"]
