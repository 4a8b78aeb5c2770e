"""Whole svi jobs: durable clip by clip, steered while they run, branched and gone on from."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from core.config import CoreConfig
from core.engine import Engine
from core.engine_process import EngineDied, EngineProcess, Verdict
from core.media import read_embedded
from core.pipelines import build
from core.pipelines.device import detect
from core.pipelines.wan_video import WanVideo
from core.protocol import Cancelled, Clip, Completed, Event, Failed, Job, Plan
from tests.core.pipelines.svi_runs import FRAMES, OVERLAP, Studio, same_latents

ADDED = FRAMES - OVERLAP


@pytest.fixture(scope="module")
def studio(config: CoreConfig) -> Iterator[Studio]:
    device = detect()
    load = partial(build, config=config, device=device)
    engine = Engine(load=load, config=config, device=device, versions={})
    yield Studio(engine, config)
    engine.close()


@pytest.fixture(scope="module")
def undisturbed(studio: Studio) -> tuple[Job, Completed]:
    job = studio.job()
    return job, studio.made(job)


def test_three_clips_become_one_video(studio: Studio) -> None:
    job = studio.job()
    end = studio.made(job)
    video = end.artifacts[0]
    assert (video.frames, video.fps, video.width) == (FRAMES + 2 * ADDED, 16.0, 64)
    assert studio.frames(end).shape == (FRAMES + 2 * ADDED, 64, 64, 3)
    assert [(clip.index, clip.prompt, clip.seed, clip.clips) for clip in studio.told()] == [
        (0, "a cat walks", 7, 3),
        (1, "it sits down", 49, 3),
        (2, "it sits down", 91, 3),
    ]


def test_each_clip_is_stored_before_the_next_one_begins(studio: Studio) -> None:
    studio.made(studio.job())
    order: list[int] = []
    for event in studio.events:
        if event.type == "clip":
            order.append(event.index)
        elif event.type == "progress" and event.clip is not None:
            assert event.clip in (len(order), len(order) - 1)
    assert order == [0, 1, 2]


def test_the_video_tells_the_prompt_and_seed_of_each_clip(
    studio: Studio, undisturbed: tuple[Job, Completed]
) -> None:
    _, end = undisturbed
    metadata = read_embedded(studio.config.outputs_dir / end.artifacts[0].url)
    assert metadata is not None
    assert [clip["prompt"] for clip in metadata["clips"]] == [
        "a cat walks", "it sits down", "it sits down",
    ]  # fmt: skip
    assert [clip["seed"] for clip in metadata["clips"]] == [7, 49, 91]
    assert {lora["name"] for lora in metadata["loras"]} == {"wan-demo-svi"}


def test_joining_encodes_nothing_again(studio: Studio, undisturbed: tuple[Job, Completed]) -> None:
    job, end = undisturbed
    segments = sum(len(segment) for segment in studio.segments(job))
    joined = end.artifacts[0].size_bytes
    assert abs(joined - segments) < 0.1 * segments + 10_000


class Lost:
    """Stops a job as if its worker was lost, while clip `index` is made."""

    def __init__(self, studio: Studio, index: int) -> None:
        self._studio, self._index = studio, index
        self._asked = count()

    def __call__(self) -> bool:
        return len(self._studio.told()) == self._index and next(self._asked) > 40


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_second_attempt_goes_on_at_the_next_clip_with_the_same_bits(
    studio: Studio, undisturbed: tuple[Job, Completed], index: int
) -> None:
    job = studio.job()
    assert isinstance(studio.run(job, cancelled=Lost(studio, index)), Cancelled)
    again = studio.job(job_id=job.id, attempt=2)
    end = studio.made(again)
    assert end.metrics["clips_found"] == index
    assert same_latents(studio.latents(again), studio.latents(undisturbed[0]))
    assert studio.segments(again) == studio.segments(undisturbed[0])
    assert np.array_equal(studio.frames(end), studio.frames(undisturbed[1]))


def test_a_blended_and_matched_video_goes_on_with_the_same_bits_too(studio: Studio) -> None:
    """What the seam holds back and the running colours are stored with each clip."""
    how: dict[str, Any] = {"seam": "blend", "colour_match": 0.5}
    whole = studio.job(**how)
    expected = studio.frames(studio.made(whole))
    job = studio.job(**how)
    assert isinstance(studio.run(job, cancelled=Lost(studio, 2)), Cancelled)
    again = studio.job(job_id=job.id, attempt=2, **how)
    assert np.array_equal(studio.frames(studio.made(again)), expected)
    assert len(expected) == FRAMES + 2 * ADDED


def test_a_blend_differs_from_a_cut_at_the_seams_only(
    studio: Studio, undisturbed: tuple[Job, Completed]
) -> None:
    cut = studio.frames(undisturbed[1])
    blend = studio.frames(studio.made(studio.job(seam="blend")))
    differs = [np.abs(a.astype(int) - b).mean() for a, b in zip(cut, blend, strict=True)]
    seams = [i for start in (FRAMES, FRAMES + ADDED) for i in range(start - OVERLAP, start)]
    elsewhere = [share for i, share in enumerate(differs) if i not in seams]
    assert min(differs[i] for i in seams[1:-1]) > max(elsewhere)


def test_a_job_that_was_killed_while_joining_only_joins(studio: Studio) -> None:
    job = studio.job()
    studio.made(job)
    again = job.model_copy(update={"attempt": 2})
    end = studio.made(again)
    assert end.metrics["clips_found"] == 3
    assert [event.type for event in studio.events if event.type != "progress"] == ["clip"] * 3
    assert "denoising" not in end.metrics["stages_s"]


# --- steering -------------------------------------------------------------------------------------


def test_a_prompt_that_comes_is_changed_and_one_that_was_made_is_not(studio: Studio) -> None:
    job = studio.job()
    assert job.plan is not None
    changed = job.plan.model_copy(update={"prompts": ("too late", "it runs", "it jumps"), "rev": 1})
    studio.made(job, steered=lambda: changed if studio.told() else None)
    assert [clip.prompt for clip in studio.told()] == ["a cat walks", "it runs", "it jumps"]


def test_clips_are_appended_and_dropped(studio: Studio) -> None:
    for clips in (1, 4):
        job = studio.job()
        assert job.plan is not None
        plan = job.plan.model_copy(update={"num_clips": clips, "rev": 1})
        end = studio.made(job, steered=lambda plan=plan: plan if studio.told() else None)
        assert len(studio.told()) == clips
        assert end.artifacts[0].frames == FRAMES + (clips - 1) * ADDED


def test_an_endless_job_finishes_after_the_clip_in_the_making(studio: Studio) -> None:
    job = studio.job(infinite_mode=True, num_clips=10)
    assert job.plan is not None
    told = job.plan.model_copy(update={"finish": True, "rev": 1})

    def steered() -> Plan | None:
        return told if len(studio.told()) == 1 else None

    end = studio.made(job, steered=steered)
    assert end.artifacts[0].frames == FRAMES
    fractions = [event.fraction for event in studio.events if event.type == "progress"]
    assert max(fractions) <= 0.05  # of the loading; nobody knows how long the rest is


# --- afterwards -----------------------------------------------------------------------------------


def test_going_on_keeps_every_clip_and_bits_as_if_it_had_been_one_job(
    studio: Studio, undisturbed: tuple[Job, Completed]
) -> None:
    first = studio.job(num_clips=2)
    studio.made(first)
    job = studio.job(prompts=["it sits down"], num_clips=1, continue_from=f"clip:{first.id}/1")
    end = studio.made(job)
    assert [clip.index for clip in studio.told()] == [0, 1, 2]
    assert same_latents(studio.latents(job), studio.latents(undisturbed[0]))
    assert np.array_equal(studio.frames(end), studio.frames(undisturbed[1]))


def test_a_branch_shares_the_past_and_nothing_else(
    studio: Studio, undisturbed: tuple[Job, Completed]
) -> None:
    source = undisturbed[0]
    job = studio.job(prompts=["it flies"], num_clips=2, seed=9, continue_from=f"clip:{source.id}/0")
    studio.made(job)
    ours, theirs = studio.segments(job), studio.segments(source)
    assert ours[0] == theirs[0]
    assert ours[1] != theirs[1]
    assert [clip.prompt for clip in studio.told()] == ["a cat walks", "it flies", "it flies"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"continue_from": "clip:{id}/9"}, "clip 9 of job"),
        ({"continue_from": "clip:{id}/1", "width": 80}, "the clip is 64 x 64"),
        ({"continue_from": "clip:{id}/1", "fps": 24}, "at 16 frames/s"),
    ],
)
def test_what_can_not_be_gone_on_from_is_refused_before_anything_is_loaded(
    studio: Studio,
    undisturbed: tuple[Job, Completed],
    how: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = undisturbed[0]
    raw: dict[str, Any] = {
        name: value.format(id=source.id) if isinstance(value, str) else value
        for name, value in how.items()
    }
    job = studio.job(**raw)
    monkeypatch.setattr(studio.engine._warm, "get", None)
    end = studio.run(job)
    assert isinstance(end, Failed)
    assert (end.code, end.field) == ("invalid_params", "continue_from")
    assert message in end.message


def test_after_svi_plain_image_to_video_is_what_it_was(wan: WanVideo, studio: Studio) -> None:
    """One loaded pipeline serves both, with SVI's LoRAs on for its own jobs only."""
    spec = studio.engine.state().models
    assert "wan-demo" in spec
    params = {"prompt": "a cat", "input_image": studio.upload(), "width": 64, "height": 64}
    raw = {**params, "num_frames": 9, "num_inference_steps": 2, "seed": 3, "model": "wan-demo"}

    def clip() -> bytes:
        job = Job(workflow="i2v", params=raw, attempt=1)
        end = studio.made(job)
        return studio.frames(end).tobytes()

    before = clip()
    loaded = list(studio.engine._warm._loaded.values())
    studio.made(studio.job(prompts=["a cat walks"], num_clips=1))
    assert list(studio.engine._warm._loaded.values()) == loaded
    assert clip() == before


# --- a real worker that is killed -----------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_engine_is_taken_over_by_another_one(
    studio: Studio, undisturbed: tuple[Job, Completed]
) -> None:
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DIFFBOX_DATA_DIR": str(studio.config.data_dir),
        "DIFFBOX_MODELS_DIR": str(studio.config.models_dir),
        "DIFFBOX_OUTPUTS_DIR": str(studio.config.outputs_dir),
    }
    job = studio.job()
    first = EngineProcess("handler.compose:build_engine", python=sys.executable, env=env)

    def kill(event: Event) -> Verdict:
        if event.type == "progress" and event.clip == 1 and event.stage == "denoising":
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
        return "go"

    with pytest.raises(EngineDied):
        first.run(job, on_event=kill, beat=lambda: "go", beat_s=1)
    first.close()

    clips: list[Clip] = []
    second = EngineProcess("handler.compose:build_engine", python=sys.executable, env=env)
    again = job.model_copy(update={"attempt": 2})

    def note(event: Event) -> Verdict:
        if isinstance(event, Clip):
            clips.append(event)
        return "go"

    end = second.run(again, on_event=note, beat=lambda: "go", beat_s=1)
    second.close()
    assert isinstance(end, Completed)
    assert end.metrics["clips_found"] == 1
    assert [clip.index for clip in clips] == [0, 1, 2]
    assert same_latents(studio.latents(again), studio.latents(undisturbed[0]))
    assert np.array_equal(studio.frames(end), studio.frames(undisturbed[1]))
