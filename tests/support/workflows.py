"""Workflows without weights, for tests of everything around the engine.

Put in with DIFFBOX_WORKFLOWS="tests.support.workflows:Noop,…".
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.catalog import AUTO, ModelRef
from core.clips import ClipPlace, ClipShape, StoredClip, place
from core.errors import (
    DeliveryFailed,
    InvalidParams,
    JobCancelled,
    OutOfMemory,
    Problem,
    StorageFailed,
)
from core.protocol import Plan, Stage
from core.run import Run
from core.workflows.base import Workflow
from core.workflows.params import ClipRef, FileRef, Params, Tier, clip_of, param


class NothingParams(Params):
    """Only what every workflow has."""

    model: str = param(AUTO, tier=Tier.ADVANCED, help="Unused.")
    seed: int | None = param(None, tier=Tier.BASIC, help="Unused.", ge=0)
    prompt: str = param("", tier=Tier.BASIC, help="A label.", max_length=10_000)
    input_image: FileRef | None = param(None, tier=Tier.BASIC, help="Unused.", widget="image")
    seconds: float = param(0.0, tier=Tier.BASIC, unit="s", help="How long it takes.", ge=0, le=600)
    steps: int = param(10, tier=Tier.BASIC, help="Into how many steps.", ge=1, le=1000)


class _Fake(Workflow[NothingParams]):
    params: ClassVar[type[Params]] = NothingParams

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """One row without files."""
        row = ModelRef(
            id="fake", title="Fake", family="wan_video", workflows=(self.id,), files=(), demo=True
        )
        return (row,)


class Noop(_Fake):
    """Ends at once."""

    id = "noop"
    title = "No-op"
    summary = "Does nothing."

    def run(self, params: NothingParams, run: Run) -> None:
        """Nothing."""


class Sleeper(_Fake):
    """Takes `seconds`, in `steps`, with progress; ends on cancel; saves a small video."""

    id = "sleeper"
    title = "Sleeper"
    summary = "Takes time."

    def run(self, params: NothingParams, run: Run) -> None:
        """Wait in steps."""
        run.enter(Stage.DENOISING, params.steps)
        pause = threading.Event()
        for done in range(1, params.steps + 1):
            pause.wait(params.seconds / params.steps)
            run.step(done)
        frames = (np.full((32, 32, 3), 20 * i, np.uint8) for i in range(5))
        run.enter(Stage.DECODING)
        run.save_video(frames, size=(32, 32), frames_total=5, fps=8, crf=30)


class Raiser(_Fake):
    """Fails: the prompt says how (a DiffboxError's code, or anything for a bug)."""

    id = "raiser"
    title = "Raiser"
    summary = "Fails."

    def run(self, params: NothingParams, run: Run) -> None:
        """Raise."""
        if params.prompt == "out_of_memory":
            raise OutOfMemory("too little memory")
        if params.prompt == "storage_failed":
            raise StorageFailed("the disk is full")
        if params.prompt == "delivery_failed":
            raise DeliveryFailed("the bucket is away")
        raise RuntimeError("a bug")


class Crasher(_Fake):
    """Kills its own process, `seconds` after the start; with a path as prompt only the first time.

    The path is a marker file: when it exists, the job completes.
    """

    id = "crasher"
    title = "Crasher"
    summary = "Dies."

    def run(self, params: NothingParams, run: Run) -> None:
        """Die."""
        if params.prompt:
            marker = Path(params.prompt)
            if marker.exists():
                return
            marker.touch()
        threading.Event().wait(params.seconds)
        os.kill(os.getpid(), signal.SIGKILL)


class Deaf(_Fake):
    """Takes `seconds` and does not listen to cancel."""

    id = "deaf"
    title = "Deaf"
    summary = "Ignores cancel."

    def run(self, params: NothingParams, run: Run) -> None:
        """Wait, whatever happens."""
        run.enter(Stage.DENOISING, 1)
        end = time.monotonic() + params.seconds
        while time.monotonic() < end:
            try:
                run.check()
            except JobCancelled:
                pass
            threading.Event().wait(0.05)


class GilHolder(_Fake):
    """Holds the GIL for `seconds` in one C call."""

    id = "gilholder"
    title = "GIL holder"
    summary = "Blocks all threads of its process."

    def run(self, params: NothingParams, run: Run) -> None:
        """Sleep in C through PyDLL, which, unlike CDLL, keeps the GIL."""
        run.enter(Stage.DENOISING, 1)
        ctypes.PyDLL(None).usleep(round(params.seconds * 1_000_000))
        run.step(1)


class ClipsParams(NothingParams):
    """What a workflow of clips has: prompts, how many, where it begins, what all share."""

    prompts: tuple[str, ...] = param(
        ("a",), tier=Tier.BASIC, help="One a clip.", widget="texts", counted_by="num_clips"
    )
    num_clips: int = param(3, tier=Tier.BASIC, help="How many.", ge=1, le=1000)
    endless: bool = param(False, tier=Tier.BASIC, help="Goes on until it is told to finish.")
    size: int = param(32, tier=Tier.BASIC, help="The same for all clips of a video.")
    go_on_from: ClipRef | None = param(None, tier=Tier.BASIC, help="A clip.", widget="clip")


class Clips(Workflow[ClipsParams]):
    """Makes clip after clip, `seconds` each in `steps`, as the plan wants them; keeps them.

    A clip's file is INIT and then its prompt. With a folder as `prompt`, clip i is not done before
    there is a file i in it.
    """

    id = "clips"
    title = "Clips"
    summary = "Can be steered."
    params: ClassVar[type[Params]] = ClipsParams
    models = _Fake.models

    def plan(self, params: ClipsParams) -> Plan:
        """One clip a prompt."""
        return Plan(
            prompts=params.prompts,
            num_clips=None if params.endless else params.num_clips,
            first=clip_of(params.go_on_from)[1] + 1 if params.go_on_from else 0,
        )

    def planned(self, plan: Plan) -> dict[str, Any]:
        """The other way round."""
        found: dict[str, Any] = {"prompts": plan.prompts, "endless": plan.num_clips is None}
        return found if plan.num_clips is None else {**found, "num_clips": plan.num_clips}

    def check_continuation(self, params: ClipsParams, source: ClipsParams) -> None:
        """All clips have one size."""
        if params.size != source.size:
            message = f"size={params.size} must be {source.size}, as of the clips before"
            raise InvalidParams(message, problems=(Problem(field="size", message=message),))

    def run(self, params: ClipsParams, run: Run) -> None:
        """Find what is there, go on as long as the plan wants more."""
        clips: list[StoredClip] = []
        if params.go_on_from:
            clips += run.clips.kept(*clip_of(params.go_on_from), field="go_on_from")
        clips += run.clips.made(clips[-1] if clips else None, {})
        for clip in clips:
            run.tell_clip(clip)
        while _plan(run).wants(index := len(clips)):
            run.begin_clip(index)
            prompt = _plan(run).prompt(index)
            self._wait(params, run, index)
            at = place(clips[-1] if clips else None, prompt=prompt, seed=index, settings={})
            clips.append(self._store(run, at))
            run.tell_clip(clips[-1])
        frames = (np.full((32, 32, 3), 20 * i, np.uint8) for i in range(5))
        run.save_video(frames, size=(32, 32), frames_total=5, fps=8, crf=30)

    def _wait(self, params: ClipsParams, run: Run, index: int) -> None:
        run.enter(Stage.DENOISING, params.steps)
        while params.prompt and not (Path(params.prompt) / str(index)).exists():
            run.check()
            threading.Event().wait(0.02)
        for done in range(1, params.steps + 1):
            threading.Event().wait(params.seconds / params.steps)
            run.step(done)

    def _store(self, run: Run, at: ClipPlace) -> StoredClip:
        with run.clips.new_file(at, "mp4") as file:
            file.path.write_bytes(b"INIT" + at.prompt.encode())
            segment = file.commit()
        shape = ClipShape(size=(32, 32), fps=8, frames=4, init_bytes=4)
        return run.clips.add(at, shape, segment, latents=Path.touch, pixels={})


def _plan(run: Run) -> Plan:
    plan = run.plan()
    assert plan, "every job of clips has one"
    return plan


ALL = ",".join(
    f"tests.support.workflows:{cls.__name__}"
    for cls in (Noop, Sleeper, Raiser, Crasher, Deaf, GilHolder, Clips)
)
"""Value for DIFFBOX_WORKFLOWS."""
