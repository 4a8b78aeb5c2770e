"""`diffbox jobs prompts, steer, continue, again` against a running diffbox."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.cli_clips import change, rows, steered
from controlplane.cli_remote import Server
from controlplane.records import JobProgress, JobRecord
from core.errors import InvalidParams
from core.protocol import JobStatus, Plan, now
from tests.support import workflows
from tests.support.stack import Stack, running_stack
from tests.support.wait import wait_until

PLAN = Plan(prompts=("a", "b"), num_clips=3)


def flags(**given: Any) -> argparse.Namespace:
    usual: dict[str, Any] = {
        "append": [],
        "change": [],
        "drop": [],
        "num_clips": None,
        "finish": False,
    }
    return argparse.Namespace(**{**usual, **given})


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"finish": True}, {"finish": True}),
        ({"num_clips": 9}, {"num_clips": 9}),
        ({"append": ["d"]}, {"prompts": ["a", "b", "b", "d"], "num_clips": 4}),
        ({"change": [("1", "B")]}, {"prompts": ["a", "B"], "num_clips": 3}),
        ({"change": [("2", "C")]}, {"prompts": ["a", "b", "C"], "num_clips": 3}),
        ({"drop": [1]}, {"prompts": ["a"], "num_clips": 2}),
        ({"drop": [2, 2]}, {"prompts": ["a", "b"], "num_clips": 2}),
        (
            {"drop": [1], "append": ["d"], "change": [("0", "A")]},
            {"prompts": ["A", "b", "d"], "num_clips": 3},
        ),
    ],
)
def test_flags_become_a_change_of_the_plan(given: dict[str, Any], body: dict[str, Any]) -> None:
    assert change(PLAN, flags(**given)) == body


def test_an_endless_plan_stays_endless() -> None:
    endless = PLAN.model_copy(update={"num_clips": None})
    assert change(endless, flags(append=["c"])) == {"prompts": ["a", "b", "c"]}


@pytest.mark.parametrize("given", [{"drop": [-1]}, {"change": [("x", "y")]}])
def test_a_clip_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        change(PLAN, flags(**given))


def test_clips_are_counted_over_the_whole_video() -> None:
    later = PLAN.model_copy(update={"first": 4})
    assert change(later, flags(change=[("5", "B")]))["prompts"] == ["a", "B"]
    with pytest.raises(InvalidParams, match="they are 4 to 5"):
        change(later, flags(drop=[0]))


def test_prompts_are_shown_as_made_now_and_coming() -> None:
    record = JobRecord(
        id="j", workflow="clips", params={}, created_at=now(), plan=PLAN,
        status=JobStatus.RUNNING, progress=JobProgress(clip=0),
    )  # fmt: skip
    assert [line.split() for line in rows(record)] == [
        ["0", "now", "a"], ["1", "coming", "b"], ["2", "coming", "b"],
    ]  # fmt: skip
    told = record.model_copy(update={"plan": PLAN.model_copy(update={"finish": True})})
    assert len(rows(told)) == 2
    endless = record.model_copy(update={"plan": PLAN.model_copy(update={"num_clips": None})})
    assert "until it is told to finish" in rows(endless)[-1]


# --- against a server -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), DIFFBOX_BACKEND="memory") as stack:
        yield stack


def diffbox(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DIFFBOX_URL": stack.url, "DIFFBOX_WORKFLOWS": workflows.ALL}
    argv = [sys.executable, "-m", "controlplane.cli", "jobs", *args]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=env, timeout=60)


def said(stack: Stack, *args: str) -> str:
    done = diffbox(stack, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_job_is_steered_and_gone_on_from(stack: Stack, tmp_path: Path) -> None:
    def job(job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{stack.url}/api/jobs/{job_id}").json()
        return found

    body = {"prompts": ["a", "b"], "num_clips": 2, "prompt": str(tmp_path)}
    job_id = httpx.post(f"{stack.url}/api/workflows/clips", json=body).json()["job_id"]
    wait_until(lambda: job(job_id)["progress"]["clip"] == 0)

    shown = said(stack, "steer", job_id, "--append", "c", "--change", "1", "B")
    assert [line.split()[:3] for line in shown.splitlines()] == [
        ["0", "now", "a"], ["1", "coming", "B"], ["2", "coming", "c"],
    ]  # fmt: skip
    refused = diffbox(stack, "steer", job_id, "--change", "0", "A")
    assert refused.returncode == 2
    assert "clip 0 is being made" in refused.stderr

    for index in range(9):
        (tmp_path / str(index)).touch()
    wait_until(lambda: job(job_id)["status"] == "completed")
    assert [clip["prompt"] for clip in job(job_id)["clips"]] == ["a", "B", "c"]
    assert said(stack, "prompts", job_id).split()[:3] == ["0", "made", "a"]

    further = said(stack, "continue", job_id, "--prompts", "d", "--num-clips", "1").strip()
    wait_until(lambda: job(further)["status"] == "completed")
    assert [clip["prompt"] for clip in job(further)["clips"]] == ["a", "B", "c", "d"]

    again = said(stack, "again", job_id, "--clip", "1").strip()
    wait_until(lambda: job(again)["status"] == "completed")
    ours, theirs = job(again)["clips"], job(job_id)["clips"]
    assert [clip["prompt"] for clip in ours] == ["a", "B", "c"]
    assert ours[0]["artifact"]["sha256"] == theirs[0]["artifact"]["sha256"]


def test_a_change_is_made_on_top_of_one_that_was_quicker(stack: Stack, tmp_path: Path) -> None:
    body = {"prompts": ["a"], "num_clips": 1, "prompt": str(tmp_path)}
    job_id = httpx.post(f"{stack.url}/api/workflows/clips", json=body).json()["job_id"]
    with contextlib.closing(Server(stack.url)) as server:
        known = server.job(job_id)
        quicker = {"rev": 0, "prompts": ["a", "b"], "num_clips": 2}
        httpx.patch(f"{stack.url}/api/jobs/{job_id}/plan", json=quicker).raise_for_status()
        plan = steered(server, known, flags(append=["c"])).plan
        assert plan and (plan.prompts, plan.num_clips, plan.rev) == (("a", "b", "c"), 3, 2)
        server.cancel(job_id)


def test_the_job_comes_first_and_its_parameters_are_told(stack: Stack) -> None:
    assert "--after" in said(stack, "continue", "--help")
    refused = diffbox(stack, "continue", "--after", "1", "some-job")
    assert refused.returncode == 2
    assert "the ID of the job comes first" in refused.stderr
    job_id = httpx.post(f"{stack.url}/api/workflows/clips", json={}).json()["job_id"]
    assert "--num-clips" in said(stack, "again", job_id, "--help")


def test_a_job_without_clips_says_so(stack: Stack) -> None:
    job_id = httpx.post(f"{stack.url}/api/workflows/noop", json={}).json()["job_id"]
    assert "makes no clips" in said(stack, "prompts", job_id)
    done = diffbox(stack, "steer", job_id, "--finish")
    assert done.returncode == 2
    assert "nothing to steer" in done.stderr
