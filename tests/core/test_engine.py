"""Engine: one loaded pipeline, one terminal event, whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from core.config import CoreConfig
from core.engine import Engine
from core.errors import OutOfMemory
from core.lora import LoraUse
from core.protocol import Cancelled, Completed, Event, Failed, Job, Progress, Stage, TerminalEvent
from core.run import Run
from core.workflows import _registered
from core.workflows.base import PipelineSpec
from tests.support.engine import DEVICE
from tests.support.workflows import NothingParams, _Fake


class FakePipeline:
    """Counts what is done to it."""

    def __init__(self, spec: PipelineSpec) -> None:
        self.spec = spec
        self.provenance: dict[str, Any] = {"models": [{"id": spec.model}]}
        self.released = 0
        self.recovered = 0

    def use_loras(self, uses: Sequence[LoraUse], run: Run) -> None:
        assert not uses

    def measured(self) -> dict[str, Any]:
        return {"peak_memory_gib": 1.5}

    def release(self) -> None:
        self.released += 1

    def recover(self) -> None:
        self.recovered += 1


class Painter(_Fake):
    """Loads the pipeline named by the prompt, paints `steps` frames; "oom" fails after loading."""

    id: ClassVar[str] = "painter"
    title: ClassVar[str] = "Painter"
    summary: ClassVar[str] = "Paints."

    def run(self, params: NothingParams, run: Run) -> None:
        run.pipeline(PipelineSpec(family="wan_video", model=params.prompt))
        if params.prompt == "oom":
            raise OutOfMemory("too large")
        frames = (np.full((16, 16, 3), 9, np.uint8) for _ in range(params.steps))
        counted = run.steps(Stage.DECODING, frames, params.steps)
        run.save_video(counted, size=(16, 16), frames_total=params.steps, fps=8, crf=30)


@pytest.fixture
def loaded() -> list[FakePipeline]:
    return []


@pytest.fixture
def engine(tmp_path: Path, loaded: list[FakePipeline], monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setitem(_registered, "painter", Painter())

    def load(spec: PipelineSpec, run: Run) -> FakePipeline:
        loaded.append(FakePipeline(spec))
        return loaded[-1]

    folder = tmp_path / "outputs"
    config = CoreConfig(data_dir=tmp_path, models_dir=tmp_path, outputs_dir=folder)
    return Engine(load=load, config=config, device=DEVICE, versions={})


def run(engine: Engine, model: str = "a", **params: Any) -> TerminalEvent:
    job = Job(workflow="painter", params={"model": "fake", "seed": 5, "prompt": model, **params})
    return engine.run(job, emit=lambda _: None, cancelled=lambda: False)


def test_equal_specs_share_one_loaded_pipeline(engine: Engine, loaded: list[FakePipeline]) -> None:
    run(engine, "a")
    run(engine, "a")
    assert len(loaded) == 1


def test_another_spec_takes_the_place_of_the_first(
    engine: Engine, loaded: list[FakePipeline]
) -> None:
    run(engine, "a")
    run(engine, "b")
    assert [pipeline.released for pipeline in loaded] == [1, 0]


def test_a_completed_job_tells_its_outputs_and_times(engine: Engine, tmp_path: Path) -> None:
    done = run(engine)
    assert isinstance(done, Completed)
    video, poster = done.artifacts
    assert (video.frames, video.width, video.fps) == (10, 16, 8.0)
    assert poster.media_type == "image/webp"
    assert all((tmp_path / "outputs" / a.url).exists() for a in done.artifacts)
    assert set(done.metrics["stages_s"]) == {"decoding", "saving"}
    assert done.metrics["peak_memory_gib"] == 1.5


def test_an_error_becomes_its_failed_event_and_the_pipeline_recovers(
    engine: Engine, loaded: list[FakePipeline]
) -> None:
    failed = run(engine, "oom")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("out_of_memory", False)
    assert loaded[0].recovered == 1


def test_after_running_out_of_memory_the_weights_are_dropped(
    engine: Engine, loaded: list[FakePipeline]
) -> None:
    run(engine, "oom")
    assert loaded[0].released == 1


def test_the_pipeline_is_released_when_no_frame_of_the_error_holds_it(
    engine: Engine, loaded: list[FakePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[object] = []
    monkeypatch.setattr(FakePipeline, "release", lambda _: held.append(sys.exc_info()[1]))
    run(engine, "oom")
    assert held == [None]


def test_cancel_while_frames_come_leaves_no_file(engine: Engine, tmp_path: Path) -> None:
    seen: list[Event] = []
    job = Job(workflow="painter", params={"model": "fake", "seed": 5, "prompt": "a", "steps": 50})
    ended = engine.run(job, emit=seen.append, cancelled=lambda: len(seen) >= 1)
    assert isinstance(ended, Cancelled)
    assert [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (Job(workflow="nope", params={}), "unknown_workflow"),
        (Job(workflow="painter", params={"model": "fake", "steps": 0}), "invalid_params"),
    ],
)
def test_a_job_that_cant_be_read_fails(engine: Engine, job: Job, code: str) -> None:
    ended = engine.run(job, emit=lambda _: None, cancelled=lambda: False)
    assert isinstance(ended, Failed)
    assert ended.code == code


def test_outputs_that_cant_be_written_fail_with_the_reason(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    ended = run(engine)
    assert isinstance(ended, Failed)
    assert "outputs" in ended.message


def test_progress_is_dense_enough_and_ends_at_the_last_step(engine: Engine) -> None:
    seen: list[Progress] = []
    job = Job(workflow="painter", params={"model": "fake", "seed": 5, "prompt": "a"})
    engine.run(job, emit=seen.append, cancelled=lambda: False)  # type: ignore[arg-type]
    decoding = [event for event in seen if event.stage is Stage.DECODING]
    assert (decoding[0].step, decoding[-1].step) == (0, 10)
    assert seen[-1].stage is Stage.SAVING
