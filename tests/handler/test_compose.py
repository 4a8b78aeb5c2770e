"""The composition root: an engine that runs a demo job from a picture to an mp4."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import torch

from core.protocol import Completed, Job, Progress, Stage
from core.workflows import workflow
from handler.compose import build_engine
from tests.core.pipelines.demo_runs import SIZE, picture


def test_engine_makes_an_mp4_with_the_demo_and_keeps_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATA", "MODELS", "OUTPUTS"):
        monkeypatch.setenv(f"DIFFBOX_{name}_DIR", str(tmp_path / name.lower()))
    engine = build_engine()
    torch.set_num_threads(1)
    state = engine.state()
    assert "wan-demo" in state.models
    assert {"diffbox", "diffsynth", "torch"} <= state.versions.keys()
    job = Job(workflow="i2v", params=params())
    stages: list[Stage] = []
    for expected in (True, False):
        stages.clear()
        done = engine.run(job, lambda event: stages.append(stage_of(event)), lambda: False)
        assert isinstance(done, Completed), done
        assert (Stage.LOADING in stages) is expected
    assert isinstance(done, Completed)
    video = done.artifacts[0]
    assert (video.width, video.height, video.frames) == (SIZE, SIZE, 5)
    stored = (tmp_path / "outputs" / video.url).read_bytes()
    assert b"ftyp" in stored[:16]
    assert b"wan-demo" in stored
    engine.close()


def stage_of(event: object) -> Stage:
    assert isinstance(event, Progress)
    return event.stage


def params() -> dict[str, object]:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    raw = {
        "prompt": "a cat",
        "input_image": uri,
        "resolution": "custom",
        "width": SIZE,
        "height": SIZE,
        "num_frames": 5,
        "num_inference_steps": 2,
        "seed": 1,
    }
    settled = workflow("i2v").parse(raw).model_dump(mode="json")
    return dict(json.loads(json.dumps(settled)))
