"""EngineProcess: a warm child, cancelled by flag, then by force, and spawned again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.engine_process import EngineDied, EngineProcess, Verdict
from core.errors import ConfigError
from core.protocol import (
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Job,
    Plan,
    Progress,
    TerminalEvent,
)
from tests.support import engine, workflows
from tests.support.wait import wait_until


@pytest.fixture
def child_env(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DIFFBOX_WORKFLOWS": workflows.ALL,
        "DIFFBOX_DATA_DIR": str(tmp_path / "data"),
        "DIFFBOX_MODELS_DIR": str(tmp_path / "models"),
        "DIFFBOX_OUTPUTS_DIR": str(tmp_path / "outputs"),
    }


@pytest.fixture
def process(child_env: dict[str, str]) -> Iterator[EngineProcess]:
    started = EngineProcess(engine.PATH, grace_s=0.3, env=child_env)
    yield started
    started.close()


def go(*_: Any) -> Verdict:
    return "go"


def run(
    process: EngineProcess, workflow: str, *, verdict: Verdict = "go", **params: Any
) -> TerminalEvent | None:
    job = Job(workflow=workflow, params={"model": "fake", "seed": 1, **params}, attempt=1)
    return process.run(job, on_event=lambda _: verdict, beat=go, beat_s=0.2)


def test_a_ready_child_tells_what_it_can_do(process: EngineProcess) -> None:
    state = process.wait_ready()
    assert state.device == engine.DEVICE
    assert "wan-demo" in state.models


def test_two_jobs_share_one_child(process: EngineProcess) -> None:
    assert isinstance(run(process, "noop"), Completed)
    first = process.pid
    assert isinstance(run(process, "noop"), Completed)
    assert process.pid == first


def test_progress_arrives_in_order_and_outputs_are_stored(
    process: EngineProcess, tmp_path: Path
) -> None:
    seen: list[Progress] = []

    def keep(event: Any) -> Verdict:
        seen.append(event)
        return "go"

    job = Job(workflow="sleeper", params={"seed": 3, "seconds": 0.5, "model": "fake"}, attempt=1)
    done = process.run(job, on_event=keep, beat=go, beat_s=1)
    assert isinstance(done, Completed)
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    video = done.artifacts[0]
    assert (tmp_path / "outputs" / video.url).stat().st_size == video.size_bytes
    assert done.metrics["seed"] == 3


def test_cancel_between_steps_keeps_the_child(process: EngineProcess) -> None:
    process.wait_ready()
    before = process.pid
    assert isinstance(run(process, "sleeper", verdict="cancel", seconds=60, steps=600), Cancelled)
    assert process.pid == before


def test_a_deaf_child_is_killed_after_the_grace_and_the_next_job_runs(
    process: EngineProcess,
) -> None:
    assert isinstance(run(process, "deaf", verdict="cancel", seconds=60), Cancelled)
    assert process.pid is None
    assert isinstance(run(process, "noop"), Completed)


def test_a_job_that_hangs_is_killed_and_fails_as_timeout(child_env: dict[str, str]) -> None:
    process = EngineProcess(engine.PATH, stall_s=0.5, env=child_env)
    process.wait_ready()  # spawning it may take longer than that
    hung = run(process, "deaf", seconds=60)
    assert isinstance(hung, Failed)
    assert (hung.code, hung.message) == ("timeout", "the job hung: nothing happened for 0.5 s")
    process.wait_ready()
    assert isinstance(run(process, "noop"), Completed)
    process.close()


def test_a_cancel_for_another_job_does_nothing(process: EngineProcess) -> None:
    def cancel_another(_: Any) -> Verdict:
        process.cancel("another")
        return "go"

    job = Job(workflow="sleeper", params={"seed": 3, "seconds": 0.3, "model": "fake"})
    assert isinstance(process.run(job, on_event=cancel_another, beat=go, beat_s=1), Completed)


def test_a_cancel_from_another_thread_after_the_child_died_leaves_run_its_end(
    process: EngineProcess,
) -> None:
    """The child dies while the owner is busy; the canceller must not take its handles away."""
    job = Job(workflow="sleeper", params={"seed": 3, "seconds": 60, "model": "fake"})

    def die_then_cancel(_: Any) -> Verdict:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda pid=process.pid: not alive(pid))  # type: ignore[misc]
        canceller = threading.Thread(target=process.cancel, args=(job.id,))
        canceller.start()
        canceller.join()
        return "go"

    assert isinstance(process.run(job, on_event=die_then_cancel, beat=go, beat_s=1), Cancelled)
    assert isinstance(run(process, "noop"), Completed)


def clips_job(**params: Any) -> Job:
    """Three clips of the prompt "a"."""
    plan = Plan(prompts=("a",), num_clips=3)
    settled = {"model": "fake", "seed": 1, "steps": 2, **params}
    return Job(workflow="clips", params=settled, attempt=1, plan=plan)


def changed(rev: int, **update: Any) -> Plan:
    return Plan(prompts=("a", f"rev {rev}"), num_clips=3, rev=rev).model_copy(update=update)


def test_a_steered_job_makes_the_clips_of_its_newest_plan(process: EngineProcess) -> None:
    job = clips_job(seconds=0.2)
    made: list[str] = []

    def steer_after_the_first(event: Event) -> Verdict:
        if isinstance(event, Clip):
            made.append(event.prompt)
            if event.index == 0:
                for rev in (2, 1):
                    steerer = threading.Thread(target=process.steer, args=(job.id, changed(rev)))
                    steerer.start()
                    steerer.join()
        return "go"

    done = process.run(job, on_event=steer_after_the_first, beat=go, beat_s=1)
    assert isinstance(done, Completed)
    assert made in (["a", "rev 2", "rev 2"], ["a", "a", "rev 2"])


def test_a_plan_is_forgotten_with_its_job_and_never_another_jobs(process: EngineProcess) -> None:
    first = clips_job()

    def finish_it(_: Event) -> Verdict:
        assert process.steer(first.id, changed(1, finish=True))
        assert not process.steer("another", changed(1, finish=True))
        return "go"

    def clips_of(job: Job, on_event: Callable[[Event], Verdict]) -> int:
        seen: list[Event] = []

        def keep(event: Event) -> Verdict:
            seen.append(event)
            return on_event(event)

        assert isinstance(process.run(job, on_event=keep, beat=go, beat_s=1), Completed)
        return sum(isinstance(event, Clip) for event in seen)

    assert not process.steer(first.id, changed(1, finish=True))
    assert clips_of(first, finish_it) < 3
    again = first.model_copy(update={"attempt": 2})
    assert clips_of(again, go) == 3
    assert not process.steer(first.id, changed(2))


def test_a_lost_job_has_no_terminal_event(process: EngineProcess) -> None:
    assert run(process, "sleeper", verdict="lost", seconds=60, steps=600) is None


def test_beats_go_on_while_the_child_holds_its_gil(process: EngineProcess) -> None:
    beats = 0

    def beat() -> Verdict:
        nonlocal beats
        beats += 1
        return "go"

    job = Job(workflow="gilholder", params={"seconds": 1.5, "model": "fake", "seed": 0})
    assert isinstance(process.run(job, on_event=go, beat=beat, beat_s=0.2), Completed)
    assert beats >= 3


def test_a_dying_child_is_told_with_its_signal(process: EngineProcess) -> None:
    with pytest.raises(EngineDied, match="signal 9") as caught:
        run(process, "crasher")
    assert caught.value.exit_code == -signal.SIGKILL
    assert isinstance(run(process, "noop"), Completed)


def test_an_error_in_the_job_is_a_failed_event(process: EngineProcess) -> None:
    bug = run(process, "raiser", prompt="bug")
    assert isinstance(bug, Failed)
    assert (bug.code, bug.message) == ("internal", "RuntimeError: a bug")
    full = run(process, "raiser", prompt="out_of_memory")
    assert isinstance(full, Failed)
    assert full.code == "out_of_memory"


def test_a_wrong_setting_of_the_child_is_a_config_error(child_env: dict[str, str]) -> None:
    child_env["DIFFBOX_WORKFLOWS"] = "no.such:Thing"
    process = EngineProcess(engine.PATH, env=child_env)
    with pytest.raises(ConfigError, match="no.such:Thing"):
        process.wait_ready()


def test_a_factory_that_is_not_there_is_an_engine_that_died(child_env: dict[str, str]) -> None:
    process = EngineProcess("tests.support.engine:missing", env=child_env)
    with pytest.raises(EngineDied, match="exit code 1"):
        process.wait_ready()


def test_a_child_that_cant_be_spawned_leaves_no_socket_open(tmp_path: Path) -> None:
    process = EngineProcess(engine.PATH, python=str(tmp_path / "missing"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        process.start()
    assert len(os.listdir("/proc/self/fd")) == before


PARENT = f"""
from core.engine_process import EngineProcess
process = EngineProcess({engine.PATH!r})
process.wait_ready()
print(process.pid, flush=True)
input()
"""


def test_the_child_ends_when_its_parent_is_killed(child_env: dict[str, str]) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=child_env, stdin=pipe, stdout=pipe
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_until(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
